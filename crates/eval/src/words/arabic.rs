//! Arabic word problems, and Arabic nouns after numbers.
//!
//! A counted noun depends on the number: one and two are forms of the noun itself, 3 to 10 take the plural, 11 to 99
//! the singular in the accusative, and hundreds the singular; the last two digits decide. Verbs come first and agree
//! with the gender of their subject. Text has no vowel signs.

use super::arabic_forms::{ARABIC_THEMES, ArabicTheme, NAMES_ARABIC};
use super::{Says, Scene, Told, cast_of};
use crate::rng::Rng;

/// The forms of a noun that counting needs.
#[derive(Clone, Copy, Debug)]
pub struct Noun {
    /// `قلم`
    pub one: &'static str,
    /// `قلمان`
    pub two: &'static str,
    /// `قلمين`: not the subject.
    pub two_oblique: &'static str,
    /// `أقلام`
    pub many: &'static str,
    /// `قلما`: after 11 to 99 and after "how many".
    pub accusative: &'static str,
    /// `الأقلام`
    pub the_many: &'static str,
}

/// The noun after a number of at least 2; `subject` decides the form of two.
pub fn counted(n: i64, noun: &Noun, subject: bool) -> String {
    match (n, n % 100) {
        (2, _) => (if subject { noun.two } else { noun.two_oblique }).to_string(),
        (_, 3..=10) => format!("{n} {}", noun.many),
        (_, 11..=99) => format!("{n} {}", noun.accusative),
        _ => format!("{n} {}", noun.one),
    }
}

/// The words of one Arabic problem.
pub(crate) struct Scenery {
    theme: &'static ArabicTheme,
    people: Vec<(&'static str, bool)>,
    thing: &'static Noun,
    container: &'static Noun,
    coin: &'static Noun,
}

impl Scenery {
    pub(crate) fn new(rng: &mut Rng) -> Scenery {
        let weights: Vec<u32> = ARABIC_THEMES.iter().map(|theme| theme.weight).collect();
        let theme = &ARABIC_THEMES[rng.weighted(&weights)];
        let names = if theme.names.is_empty() { NAMES_ARABIC } else { theme.names };
        let mut people = names.to_vec();
        rng.shuffle(&mut people);
        people.truncate(3);
        Scenery {
            theme,
            people,
            thing: rng.choose(theme.things),
            container: rng.choose(super::arabic_forms::CONTAINERS_ARABIC),
            coin: rng.choose(super::arabic_forms::COINS_ARABIC),
        }
    }
}

impl Scene for Scenery {
    fn name(&self, person: usize) -> &str {
        self.people[person].0
    }

    fn label(&self, says: Says) -> &'static str {
        match says {
            Says::AskBoth | Says::AskThree => "المجموع",
            Says::AskDifference => "الفرق",
            Says::AskShare => "النصيب",
            Says::AskPrice => "الثمن",
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
        let thing = self.thing;
        cast.set("n", n.to_string()).set("k", k.to_string());
        cast.set("one", thing.one).set("many", thing.many).set("acc", thing.accusative).set("the", thing.the_many);
        cast.set("ns", counted(n, thing, true)).set("no", counted(n, thing, false));
        let container = self.container;
        cast.set("ks", counted(k, container, true)).set("ko", counted(k, container, false)).set("box", container.one);
        cast.set("friends", counted(k, &super::arabic_forms::FRIEND, false));
        cast.set("coins", counted(n, self.coin, true)).set("coin", self.coin.accusative);
        cast.set("days", counted(k, &super::arabic_forms::DAY, false));
        let row = &super::arabic_forms::ROW;
        cast.set("rows", counted(k, row, true)).set("rows_o", counted(k, row, false));
        cast.set("teams", counted(k, &super::arabic_forms::TEAM, false));
        cast.set("multiple", if k == 2 { "ضعف".to_string() } else { format!("{k} أضعاف") });
        cast.expand(&told.form(rng, self.theme.forms.of(told.says), with_pronoun), rng)
    }

    fn joined(&self, before: &str, after: &str, _: usize) -> Option<String> {
        let before = before.strip_suffix('.')?;
        let follows = ["ثم ", "وبعد ذلك ", "وفي "].iter().any(|word| after.starts_with(word));
        (follows && !before.contains('،')).then(|| format!("{before}، {after}"))
    }
}

/// The form without the name `{A}`, where the verb or a preposition with its pronoun says who is meant.
pub(super) fn with_pronoun(form: &str) -> Option<String> {
    if form.matches("{A}").count() != 1 || form.contains("{B}") {
        return None;
    }
    PRONOUNS.iter().find_map(|(name, pronoun)| form.contains(name).then(|| form.replace(name, pronoun)))
}

/// Where a name stands, and what stands there in its place.
const PRONOUNS: &[(&str, &str)] = &[
    ("> {A} ", "> "),
    ("[لدى|عند|مع] {A}", "[<لديه/لديها>|<عنده/عندها>|<معه/معها>]"),
    ("[لدى|مع] {A}", "[<لديه/لديها>|<معه/معها>]"),
    ("[عند|مع] {A}", "[<عنده/عندها>|<معه/معها>]"),
    (" لدى {A}", " <لديه/لديها>"),
    (" عند {A}", " <عنده/عندها>"),
    (" مع {A}", " <معه/معها>"),
    (" إلى {A}", " <إليه/إليها>"),
    (" من {A}", " <منه/منها>"),
    ("[في|داخل|على متن] {A}", "[<فيه/فيها>|<داخله/داخلها>|<على متنه/على متنها>]"),
    (" في {A}", " <فيه/فيها>"),
];

#[cfg(test)]
mod tests {
    use super::super::arabic_forms::FRIEND;
    use super::*;

    #[test]
    fn nouns_after_numbers() {
        let text = |n| counted(n, &FRIEND, false);
        assert_eq!(text(2), "صديقين");
        assert_eq!(counted(2, &FRIEND, true), "صديقان");
        assert_eq!(text(3), "3 أصدقاء");
        assert_eq!(text(10), "10 أصدقاء");
        assert_eq!(text(11), "11 صديقا");
        assert_eq!(text(99), "99 صديقا");
        assert_eq!(text(100), "100 صديق");
        assert_eq!(text(103), "103 أصدقاء");
        assert_eq!(text(112), "112 صديقا");
    }
}
