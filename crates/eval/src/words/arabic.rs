//! Arabic word problems, and Arabic nouns after numbers.
//!
//! A counted noun depends on the number: one and two are forms of the noun itself, 3 to 10 take the plural, 11 to 99
//! the singular in the accusative, and hundreds the singular; the last two digits decide. Verbs come first and agree
//! with the gender of their subject. Text has no vowel signs.

use super::arabic_forms::{ARABIC_THEMES, ArabicTheme, NAMES_ARABIC};
use super::{Says, Scene, cast_of, form};
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

    fn sentence(&self, rng: &mut Rng, fresh: bool, says: Says, people: &[usize], n: i64, k: i64) -> String {
        let people: Vec<(&str, bool)> = people.iter().map(|&person| self.people[person]).collect();
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
        cast.expand(form(rng, fresh, self.theme.forms.of(says)), rng)
    }
}

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
