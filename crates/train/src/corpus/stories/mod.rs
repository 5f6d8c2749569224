//! Little stories from a grammar: an opening, one of some thirty plots with inner choices, an ending; people, animals,
//! places and things that agree. Told plainly, on request, or followed by a question about them.
//!
//! In Arabic at least one of the two friends is a boy, so that the dual forms of the plots are right, and things and
//! animals that the plots leave open are masculine.

mod arabic;
mod english;

use eval::Language;
use eval::grammar::{Cast, capitalised};
use eval::rng::Rng;

use super::chat::{Turn, chat};
use super::{Document, Source, plain};

/// A plot: what it is about, and the middle of the story.
struct Plot {
    about: &'static str,
    text: &'static str,
}

/// A story and what one can ask about it.
struct Story {
    text: String,
    about: String,
    hero: String,
    friend: String,
    language: Language,
}

/// The corpus of stories.
pub(super) struct Stories {
    pub(super) seed: u64,
    pub(super) chat: f64,
    pub(super) arabic: f64,
}

impl Source for Stories {
    fn name(&self) -> &'static str {
        "stories"
    }

    fn origin(&self) -> String {
        "Little stories in English and Arabic from the story grammar of this repository, version 1.".into()
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "stories", index);
        let rng = &mut rng;
        let story = if rng.chance(self.arabic) { arabic_story(rng) } else { english_story(rng) };
        let arabic = story.language == Language::Arabic;
        if !rng.chance(self.chat) {
            return plain(if arabic { "story/ar" } else { "story/en" }, story.text);
        }
        let mut turns = vec![asked(rng, &story)];
        let kind = if rng.chance(0.3) {
            turns.push(question_about(rng, &story));
            if arabic { "story question/ar" } else { "story question/en" }
        } else if arabic {
            "story request/ar"
        } else {
            "story request/en"
        };
        chat(rng, kind, turns, 0.15)
    }
}

fn english_story(rng: &mut Rng) -> Story {
    let mut cast = Cast::default();
    let beasts = rng.chance(0.3);
    let (hero, kind, female);
    if beasts {
        let &(beast, name, is_female) = rng.choose(english::BEASTS);
        let article = if beast.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        kind = if rng.chance(0.5) { format!("{article} {beast}") } else { format!("a little {beast}") };
        cast.set("A", name);
        female = is_female;
        hero = format!("{kind} {} {name}", rng.pick(&["called", "named", "by the name of"]));
        let others: Vec<_> = english::BEASTS.iter().filter(|other| other.1 != name).collect();
        let &&(other, friend, friend_female) = rng.choose(&others);
        cast.set("B", if rng.chance(0.5) { friend.to_string() } else { format!("{friend} the {other}") });
        cast.set_female('B', friend_female);
    } else {
        let &(name, is_female) = rng.choose(english::CHILDREN);
        kind = if is_female { "a girl".to_string() } else { "a boy".to_string() };
        female = is_female;
        cast.set("A", name);
        hero = format!("{kind} {} {name}", rng.pick(&["called", "named", "by the name of"]));
        let others: Vec<_> = english::CHILDREN.iter().filter(|other| other.0 != name).collect();
        let &&(friend, friend_female) = rng.choose(&others);
        cast.set("B", friend).set_female('B', friend_female);
    }
    cast.set_female('A', female).set("hero", hero).set("kind", kind);
    cast.set("place", rng.pick(english::PLACES)).set("season", rng.pick(english::SEASONS));
    cast.set("food", rng.pick(english::FOODS)).set("thing", rng.pick(english::THINGS));
    cast.set("colour", rng.pick(english::COLOURS)).set("animal", rng.pick(english::ANIMALS));
    tell(rng, &cast, Language::English, (english::OPENINGS, english::PLOTS, english::ENDINGS))
}

fn arabic_story(rng: &mut Rng) -> Story {
    let mut cast = Cast::default();
    let &(name, female) = rng.choose(arabic::CHILDREN);
    let fits = |other: &&(&str, bool)| other.0 != name && !(female && other.1);
    let others: Vec<_> = arabic::CHILDREN.iter().filter(fits).collect();
    let &&(friend, friend_female) = rng.choose(&others);
    cast.set("A", name).set_female('A', female).set("B", friend).set_female('B', friend_female);
    let &(thing, his, her) = rng.choose(arabic::THINGS);
    cast.set("thing", thing).set("his_thing", if female { her } else { his });
    cast.set("the_thing", format!("ال{thing}")).set("thing_of_you", format!("{thing}ك"));
    let &(animal, the_animal) = rng.choose(arabic::ANIMALS);
    cast.set("animal", animal).set("the_animal", the_animal);
    cast.set("place", rng.pick(arabic::PLACES)).set("food", rng.pick(arabic::FOODS));
    tell(rng, &cast, Language::Arabic, (arabic::OPENINGS, arabic::PLOTS, arabic::ENDINGS))
}

fn tell(rng: &mut Rng, cast: &Cast, language: Language, parts: (&[&str], &[Plot], &[&str])) -> Story {
    let (openings, plots, endings) = parts;
    let plot = rng.choose(plots);
    let mut text = capitalised(&cast.expand(rng.pick(openings), rng));
    let gap = if rng.chance(0.3) { "\n" } else { " " };
    text.push_str(gap);
    text.push_str(&capitalised(&cast.expand(plot.text, rng)));
    if rng.chance(0.9) {
        text.push_str(gap);
        text.push_str(&capitalised(&cast.expand(rng.pick(endings), rng)));
    }
    let name = |variable| cast.get(variable).unwrap_or_default().to_string();
    Story { text, about: cast.expand(plot.about, rng), hero: name("A"), friend: name("B"), language }
}

/// Someone asks for the story.
fn asked(rng: &mut Rng, story: &Story) -> Turn {
    let mut cast = Cast::default();
    cast.set("about", story.about.as_str()).set("A", story.hero.as_str()).set("B", story.friend.as_str());
    let (question, think) = match story.language {
        Language::English => (
            "[Tell me|Please tell me|Can you tell me|I would like to hear|Write|Make up] a [short |little |nice |]story \
             [about {about}|about {about}|about {A}|about {A} and {B}][.|, please.]",
            "[A story about {about}.|They want a story about {about}.] [The hero is {A}, the friend is {B}.|{A} and {B}.]",
        ),
        Language::Arabic => (
            "[احك لي|اكتب لي|من فضلك احك لي|أريد أن أسمع] قصة [قصيرة |صغيرة |جميلة |]عن [{about}|{about}|{A}|{A} و{B}].",
            "[قصة عن {about}.|المطلوب قصة عن {about}.] [في القصة {A} و{B}.|{A} و{B}.]",
        ),
    };
    let (user, think) = (cast.expand(question, rng), cast.expand(think, rng));
    Turn { user, think, answer: story.text.clone() }
}

/// Someone asks about what was told.
fn question_about(rng: &mut Rng, story: &Story) -> Turn {
    let (friend, hero, about) = (&story.friend, &story.hero, &story.about);
    let (user, think, answer) = match (story.language, rng.below(3)) {
        (Language::English, 0) => (
            rng.pick(&["Who is the story about?", "Who was it about?", "What is the hero called?"]),
            format!("The story is about {hero}."),
            rng.pick(&["It is about {}.", "The story is about {}.", "The hero is {}."]).replace("{}", hero),
        ),
        (Language::English, 1) => (
            rng.pick(&["Who else is in the story?", "Who is the friend?", "Who was with the hero?"]),
            format!("The hero is {hero}, the friend is {friend}."),
            rng.pick(&["It is {}.", "{} is also in the story.", "The friend is {}."]).replace("{}", friend),
        ),
        (Language::English, _) => (
            rng.pick(&["What was the story about?", "What is it about, in a few words?"]),
            format!("It was about {about}."),
            format!("It was about {hero} and {about}."),
        ),
        (Language::Arabic, 0) => (
            rng.pick(&["عمن تحكي القصة؟", "ما اسم بطل القصة؟"]),
            format!("تحكي القصة عن {hero}."),
            rng.pick(&["تحكي القصة عن {}.", "القصة عن {}."]).replace("{}", hero),
        ),
        (Language::Arabic, 1) => (
            rng.pick(&["من أيضا في القصة؟", "من كان مع البطل؟"]),
            format!("في القصة {hero} و{friend}."),
            rng.pick(&["في القصة أيضا {}.", "وفي القصة كذلك {}."]).replace("{}", friend),
        ),
        (Language::Arabic, _) => (
            rng.pick(&["ما موضوع القصة؟", "عم تحكي القصة؟"]),
            format!("كانت القصة عن {about}."),
            format!("تحكي القصة عن {hero} وعن {about}."),
        ),
    };
    Turn { user: user.to_string(), think, answer }
}
