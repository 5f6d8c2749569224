//! English word problems: a theme, three names, a thing, and the sentences.

use super::english_forms::{ENGLISH_THEMES, EnglishTheme, NAMES_ENGLISH};
use super::{Says, Scene, cast_of, form};
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

    fn sentence(&self, rng: &mut Rng, fresh: bool, says: Says, people: &[usize], n: i64, k: i64) -> String {
        let people: Vec<(&str, bool)> = people.iter().map(|&person| self.people[person]).collect();
        let mut cast = cast_of(&people);
        cast.set("n", n.to_string()).set("k", k.to_string());
        cast.set("thing", self.thing.0).set("things", self.thing.1);
        cast.set("box", self.container.0).set("boxes", self.container.1);
        cast.set("times", if k == 2 { "twice".to_string() } else { format!("{k} times") });
        capitalised(&cast.expand(form(rng, fresh, self.theme.forms.of(says)), rng))
    }
}
