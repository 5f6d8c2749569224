//! Talk: greetings, thanks, questions about the model itself, and kind refusals of what lies outside its world.

mod tables;

use eval::Language;
use eval::Split;
use eval::grammar::{Cast, capitalised};
use eval::rng::Rng;
use eval::tasks::arithmetic::sum;

use super::chat::{Turn, chat};
use super::{Document, Source, typed};
use tables::{Exchange, OutsideTable};

/// The corpus of talk.
pub(super) struct Talk {
    pub(super) seed: u64,
    pub(super) arabic: f64,
}

impl Source for Talk {
    fn name(&self) -> &'static str {
        "talk"
    }

    fn origin(&self) -> String {
        "Greetings, questions about the model and refusals in English and Arabic, grammar version 1.".into()
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "talk", index);
        let rng = &mut rng;
        let arabic = rng.chance(self.arabic);
        let language = if arabic { Language::Arabic } else { Language::English };
        let (exchanges, outside) = match language {
            Language::English => (tables::ENGLISH, &tables::OUTSIDE_ENGLISH),
            Language::Arabic => (tables::ARABIC, &tables::OUTSIDE_ARABIC),
        };
        let (name, last) = if rng.chance(0.45) {
            ("refusal", refuse(rng, outside, language))
        } else {
            ("talk", say(rng, exchanges, language))
        };
        let mut turns = Vec::new();
        if rng.chance(0.25) {
            turns.push(say(rng, exchanges, language));
        }
        if rng.chance(0.1) {
            let level = rng.range(1, 3) as u8;
            let worked = sum(rng, Split::Pretrain, level, language);
            turns.push(Turn { user: worked.problem.question, think: String::new(), answer: worked.answer });
        }
        turns.push(last);
        let kind = match (name, arabic) {
            ("refusal", false) => "refusal/en",
            ("refusal", true) => "refusal/ar",
            (_, false) => "talk/en",
            (_, true) => "talk/ar",
        };
        chat(rng, kind, turns, 0.15)
    }
}

fn say(rng: &mut Rng, exchanges: &[Exchange], language: Language) -> Turn {
    let exchange = rng.choose(exchanges);
    let cast = Cast::default();
    let user = cast.expand(exchange.user, rng);
    let answer = sentence(&cast.expand(exchange.answer, rng), language);
    Turn { user: typed(rng, user, language), think: cast.expand(exchange.think, rng), answer }
}

fn refuse(rng: &mut Rng, table: &OutsideTable, language: Language) -> Turn {
    let mut cast = Cast::default();
    let (topic, question) = rng.choose(table.questions);
    for (variable, words) in table.variables {
        cast.set(variable, rng.pick(words));
    }
    cast.set("topic", *topic);
    let user = cast.expand(question, rng);
    let answer = sentence(&cast.expand(rng.pick(table.answers), rng), language);
    Turn { user: typed(rng, user, language), think: cast.expand(rng.pick(table.thoughts), rng), answer }
}

/// An answer whose last sentence may have been an empty alternative.
fn sentence(text: &str, language: Language) -> String {
    match language {
        Language::English => capitalised(text.trim()),
        Language::Arabic => text.trim().to_string(),
    }
}
