//! English word problems: a theme, three names, a thing, and the sentences.

use super::english_forms::{ENGLISH_THEMES, EnglishTheme, NAMES_ENGLISH};
use super::{Says, Scene, Told, cast_of};
use crate::grammar::capitalised;
use crate::rng::Rng;

/// The words of one English problem.
pub(crate) struct Scenery {
    theme: &'static EnglishTheme,
    people: Vec<(&'static str, bool)>,
    thing: (&'static str, &'static str),
    container: (&'static str, &'static str),
}

impl Scenery {
    pub(crate) fn new(rng: &mut Rng) -> Scenery {
        let weights: Vec<u32> = ENGLISH_THEMES.iter().map(|theme| theme.weight).collect();
        let theme = &ENGLISH_THEMES[rng.weighted(&weights)];
        let names = if theme.names.is_empty() { NAMES_ENGLISH } else { theme.names };
        let mut people = names.to_vec();
        rng.shuffle(&mut people);
        people.truncate(3);
        Scenery { theme, people, thing: *rng.choose(theme.things), container: *rng.choose(theme.containers) }
    }
}

impl Scene for Scenery {
    fn name(&self, person: usize) -> &str {
        let name = self.people[person].0;
        name.strip_prefix("the ").unwrap_or(name)
    }

    fn label(&self, says: Says) -> &'static str {
        match says {
            Says::AskBoth | Says::AskThree => "all",
            Says::AskDifference => "more",
            Says::AskShare => "each",
            Says::AskPrice => "price",
            _ => "",
        }
    }

    fn can(&self, says: Says) -> bool {
        !self.theme.forms.of(says).is_empty()
    }

    fn sentence(&self, rng: &mut Rng, told: &Told<'_>) -> String {
        let people: Vec<(&str, bool)> = told.people.iter().map(|&person| self.people[person]).collect();
        let (n, k) = (told.n, told.k);
        let mut cast = cast_of(&people);
        cast.set("n", n.to_string()).set("k", k.to_string());
        cast.set("thing", self.thing.0).set("things", self.thing.1);
        cast.set("box", self.container.0).set("boxes", self.container.1);
        cast.set("times", if k == 2 { "twice".to_string() } else { format!("{k} times") });
        let things = !self.theme.names.is_empty();
        let form = told.form(rng, self.theme.forms.of(told.says), |form| with_pronoun(form, things));
        capitalised(&cast.expand(&form, rng))
    }

    fn joined(&self, before: &str, after: &str, person: usize) -> Option<String> {
        let (name, female) = self.people[person];
        let pronoun = match (self.theme.names.is_empty(), female) {
            (false, _) => "It",
            (true, true) => "She",
            (true, false) => "He",
        };
        let rest = |text| subject_of(text, &capitalised(name)).or_else(|| subject_of(text, pronoun));
        let (before, first, after) = (before.strip_suffix('.')?, rest(before)?, rest(after)?);
        // One sentence holds two things at most.
        (!first.contains([',', ':'])).then(|| format!("{before}, then {after}"))
    }
}

/// What is said of the subject that a sentence begins with.
fn subject_of<'a>(text: &'a str, subject: &str) -> Option<&'a str> {
    text.strip_prefix(subject)?.strip_prefix(' ')
}

/// The form with a pronoun for `{A}`, where that is sure to be right; `things`: A is no person.
pub(super) fn with_pronoun(form: &str, things: bool) -> Option<String> {
    if form.matches("{A}").count() != 1 || form.contains("{B}") {
        return None;
    }
    if things {
        return Some(form.replace("{A}'s", "its").replace("{A}", "it"));
    }
    if form.contains("{A}'s ") {
        return Some(form.replace("{A}'s ", "<his/her> "));
    }
    // "[Later|Then] {A} buys": the first bracket says when.
    let at_first = form.starts_with('[') && form.split_once("] ").is_some_and(|(_, rest)| rest.starts_with("{A} "));
    let subject = ["Then ", "does ", "has ", "day ", "hour ", "evening "].map(|before| format!("{before}{{A}} "));
    let found = match form.starts_with("{A} ") {
        true => "{A} ",
        false if at_first => "] {A} ",
        false => subject.iter().find(|part| form.contains(part.as_str()))?,
    };
    Some(form.replacen(found, &found.replace("{A}", "<he/she>"), 1))
}
