//! Word problems of one to six operations, in English and Arabic, from a grammar.
//!
//! A problem is a short story about one theme: people get, lose, compare and share things, and the question needs a
//! known number of operations on what the story says. The story is built as a graph: each person's amount is a chain
//! of steps, possibly on another person's amount, and the question may join several. Everything stays in 1..=999.
//!
//! A sentence about the person of the one before may say `she` for her name, or become a part of it.
//!
//! The last sentence form of each list in the form files is held out: only [`Split::HeldOut`] problems use it. Its
//! words are known, from other forms that say the same: what is held out is the sentence, not the vocabulary, which
//! nobody who has only read this grammar could guess.

mod arabic;
mod arabic_forms;
mod english;
mod english_forms;

pub use arabic::{Noun, counted};

use crate::expression::{Op, Step};
use crate::grammar::Cast;
use crate::problem::{Expected, Language, Problem, Split, Worked};
use crate::rng::Rng;
use crate::tasks::arithmetic::step_for;

/// Most operations of a problem.
pub const OPERATIONS_MAX: u8 = 6;
/// How often two sentences about one person become one, where they can.
const JOINED: f64 = 0.25;

/// A word problem that needs exactly `operations` operations (1 to [`OPERATIONS_MAX`]).
pub fn word_problem(rng: &mut Rng, split: Split, operations: u8, language: Language) -> Worked {
    let operations = operations.clamp(1, OPERATIONS_MAX);
    loop {
        let scene: Box<dyn Scene> = match language {
            Language::English => Box::new(english::Scenery::new(rng)),
            Language::Arabic => Box::new(arabic::Scenery::new(rng)),
        };
        let Some(story) = Story::tell(rng, split, usize::from(operations), scene.as_ref()) else { continue };
        let question = story.sentences.join(" ");
        let key = format!("words {question}");
        if story.steps.len() != usize::from(operations) || Split::of(&key) != split {
            continue;
        }
        let problem = Problem {
            task: match language {
                Language::English => "words",
                Language::Arabic => "words_ar",
            },
            key,
            question,
            language,
            level: operations,
            expected: Expected::Integer(story.answer),
        };
        return Worked { problem, steps: story.steps, answer: story.answer.to_string() };
    }
}

/// What a sentence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// `A` has `n`.
    Has,
    /// `A` has `k` containers with `n` in each.
    Groups,
    /// `A` gets `n` more.
    Gains,
    /// `A` gets `k` containers with `n` in each.
    GainsGroups,
    /// `A` loses `n`.
    Loses,
    /// `B` has `n` more than `A`.
    More,
    /// `B` has `n` fewer than `A`.
    Fewer,
    /// `B` has `k` times as many as `A`.
    Times,
    /// `B` has half as many as `A`.
    Half,
    /// How many does `A` have?
    AskAmount,
    /// How many do `A` and `B` have together?
    AskBoth,
    /// How many do `A`, `B` and `C` have together?
    AskThree,
    /// How many more does `B` have than `A`?
    AskDifference,
    /// `A` shares with `k` friends; how many does each get?
    AskShare,
    /// Each costs `n`; how much do all of `A`'s cost?
    AskPrice,
}

#[cfg(test)]
impl Says {
    const ALL: [Says; 15] = [
        Says::Has,
        Says::Groups,
        Says::Gains,
        Says::GainsGroups,
        Says::Loses,
        Says::More,
        Says::Fewer,
        Says::Times,
        Says::Half,
        Says::AskAmount,
        Says::AskBoth,
        Says::AskThree,
        Says::AskDifference,
        Says::AskShare,
        Says::AskPrice,
    ];
}

/// The sentence forms of a theme, in one language; an empty list: the theme cannot say it.
pub(crate) struct Forms {
    pub(crate) has: &'static [&'static str],
    pub(crate) groups: &'static [&'static str],
    pub(crate) gains: &'static [&'static str],
    pub(crate) gains_groups: &'static [&'static str],
    pub(crate) loses: &'static [&'static str],
    pub(crate) more: &'static [&'static str],
    pub(crate) fewer: &'static [&'static str],
    pub(crate) times: &'static [&'static str],
    pub(crate) half: &'static [&'static str],
    pub(crate) ask_amount: &'static [&'static str],
    pub(crate) ask_both: &'static [&'static str],
    pub(crate) ask_three: &'static [&'static str],
    pub(crate) ask_difference: &'static [&'static str],
    pub(crate) ask_share: &'static [&'static str],
    pub(crate) ask_price: &'static [&'static str],
}

impl Forms {
    /// The forms that say this.
    fn of(&self, says: Says) -> &'static [&'static str] {
        match says {
            Says::Has => self.has,
            Says::Groups => self.groups,
            Says::Gains => self.gains,
            Says::GainsGroups => self.gains_groups,
            Says::Loses => self.loses,
            Says::More => self.more,
            Says::Fewer => self.fewer,
            Says::Times => self.times,
            Says::Half => self.half,
            Says::AskAmount => self.ask_amount,
            Says::AskBoth => self.ask_both,
            Says::AskThree => self.ask_three,
            Says::AskDifference => self.ask_difference,
            Says::AskShare => self.ask_share,
            Says::AskPrice => self.ask_price,
        }
    }
}

/// The words of one problem: names and things are chosen, sentences are made on demand.
pub(crate) trait Scene {
    /// The name of person 0, 1 or 2.
    fn name(&self, person: usize) -> &str;
    /// A label for a step that is about nobody, such as `all`.
    fn label(&self, says: Says) -> &'static str;
    /// Whether the theme can say this.
    fn can(&self, says: Says) -> bool;
    /// The sentence.
    fn sentence(&self, rng: &mut Rng, told: &Told<'_>) -> String;
    /// Two sentences about one person as one, where that can be said.
    fn joined(&self, before: &str, after: &str, person: usize) -> Option<String>;
}

/// What one sentence tells.
pub(crate) struct Told<'a> {
    pub(crate) says: Says,
    /// The persons called A, B, C in [`Says`].
    pub(crate) people: &'a [usize],
    pub(crate) n: i64,
    pub(crate) k: i64,
    /// Whether held-out forms may be used.
    pub(crate) fresh: bool,
    /// Whether the sentence before was about the same person and nobody else, so that a pronoun is clear.
    pub(crate) again: bool,
}

impl Told<'_> {
    /// The form of the sentence: one of `forms`, half of the time with a pronoun where `pronoun` knows how.
    fn form(&self, rng: &mut Rng, forms: &[&str], pronoun: impl Fn(&str) -> Option<String>) -> String {
        let form = form(rng, self.fresh, forms);
        let with_pronoun = if self.again && rng.chance(0.5) { pronoun(form) } else { None };
        with_pronoun.unwrap_or_else(|| form.to_string())
    }
}

/// One of the forms: the last is kept for evaluation, which uses it half of the time.
pub(crate) fn form<'a>(rng: &mut Rng, fresh: bool, forms: &'a [&'a str]) -> &'a str {
    match forms.split_last() {
        Some((last, known)) if fresh && (known.is_empty() || rng.chance(0.5)) => last,
        Some((_, known)) if !known.is_empty() => rng.pick(known),
        _ => forms.first().copied().unwrap_or_default(),
    }
}

struct Story<'a> {
    scene: &'a dyn Scene,
    split: Split,
    sentences: Vec<String>,
    steps: Vec<String>,
    /// Amounts of the persons that have appeared.
    amounts: Vec<i64>,
    answer: i64,
    /// The person that the last sentence was about, if it was about one alone.
    about: Option<usize>,
}

impl<'a> Story<'a> {
    /// A story with `operations` steps; `None` where the numbers lead nowhere.
    fn tell(rng: &mut Rng, split: Split, operations: usize, scene: &'a dyn Scene) -> Option<Story<'a>> {
        let (sentences, steps, amounts) = (Vec::new(), Vec::new(), Vec::new());
        let mut story = Story { scene, split, sentences, steps, amounts, answer: 0, about: None };
        let ask = story.choose_question(rng, operations);
        let reserved = match ask {
            Says::AskAmount => 0,
            Says::AskThree => 2,
            _ => 1,
        };
        story.begin(rng, operations - reserved)?;
        let mut focus = 0;
        let mut rounds = 0;
        while story.steps.len() + reserved < operations {
            rounds += 1;
            let room = operations - reserved - story.steps.len();
            focus = story.continue_with(rng, focus, room)?;
            if rounds > 12 {
                return None;
            }
        }
        story.ask(rng, ask, focus)?;
        Some(story)
    }

    fn choose_question(&self, rng: &mut Rng, operations: usize) -> Says {
        let mut options = vec![Says::AskAmount, Says::AskAmount, Says::AskShare, Says::AskPrice, Says::AskDifference];
        if operations >= 2 {
            options.extend([Says::AskBoth, Says::AskBoth]);
        }
        if operations >= 4 {
            options.extend([Says::AskThree, Says::AskThree]);
        }
        if operations == 1 {
            // One operation: mostly a gain, a loss or a comparison.
            options.extend([Says::AskAmount; 4]);
            options.push(Says::AskBoth);
        }
        options.retain(|&says| self.scene.can(says));
        *rng.choose(&options)
    }

    /// The first person's amount.
    fn begin(&mut self, rng: &mut Rng, room: usize) -> Option<()> {
        if room > 0 && self.scene.can(Says::Groups) && rng.chance(0.3) {
            let (k, n) = (rng.range(2, 9), rng.range(2, 12));
            let step = self.step(Some(0), k, Op::Mul, n)?;
            self.say(rng, Says::Groups, &[0], n, k);
            self.amounts.push(step);
        } else {
            let top = *rng.choose(&[12, 30, 60]);
            let n = rng.range(3, top);
            self.say(rng, Says::Has, &[0], n, 0);
            self.amounts.push(n);
        }
        Some(())
    }

    /// One more sentence, with one or two steps; returns the person that the story goes on with.
    fn continue_with(&mut self, rng: &mut Rng, focus: usize, room: usize) -> Option<usize> {
        let mut options = vec![Says::Gains, Says::Gains, Says::Loses, Says::Loses];
        if room >= 2 {
            options.push(Says::GainsGroups);
        }
        if self.amounts.len() < 3 {
            options.extend([Says::More, Says::Fewer, Says::Times, Says::Half]);
        }
        options.retain(|&says| self.scene.can(says));
        let says = *rng.choose(&options);
        let amount = self.amounts[focus];
        let (n, k) = (rng.range(2, amount.clamp(5, 40)), rng.range(2, 5));
        let next = self.amounts.len();
        match says {
            Says::Gains => self.amounts[focus] = self.step(Some(focus), amount, Op::Add, n)?,
            Says::Loses if n < amount => self.amounts[focus] = self.step(Some(focus), amount, Op::Sub, n)?,
            Says::GainsGroups => {
                let n = rng.range(2, 12);
                let more = self.step(Some(focus), k, Op::Mul, n)?;
                self.amounts[focus] = self.step(Some(focus), amount, Op::Add, more)?;
                self.say(rng, says, &[focus], n, k);
                return Some(focus);
            }
            Says::More | Says::Fewer | Says::Times | Says::Half => {
                let (op, operand) = match says {
                    Says::More => (Op::Add, n),
                    Says::Fewer if n < amount => (Op::Sub, n),
                    Says::Times => (Op::Mul, k),
                    Says::Half => (Op::Div, 2),
                    _ => return None,
                };
                let value = self.step(Some(next), amount, op, operand)?;
                self.amounts.push(value);
                self.say(rng, says, &[focus, next], n, k);
                return Some(next);
            }
            _ => return None,
        }
        self.say(rng, says, &[focus], n, k);
        Some(focus)
    }

    fn ask(&mut self, rng: &mut Rng, ask: Says, focus: usize) -> Option<()> {
        let amount = self.amounts[focus];
        // The question must need the whole story, so it joins persons of one chain only in ways that use all steps.
        match ask {
            Says::AskAmount => self.finish(rng, ask, &[focus], amount, 0, 0),
            Says::AskShare => {
                let k = rng.range(2, 10);
                let each = self.step(None, amount, Op::Div, k)?;
                self.finish(rng, ask, &[focus], each, 0, k)
            }
            Says::AskPrice => {
                let n = rng.range(2, 9);
                let price = self.step(None, amount, Op::Mul, n)?;
                self.finish(rng, ask, &[focus], price, n, 0)
            }
            Says::AskDifference | Says::AskBoth => {
                let other = self.other(rng, focus)?;
                let value = self.amounts[other];
                if ask == Says::AskBoth {
                    let sum = self.step(None, value, Op::Add, amount)?;
                    return self.finish(rng, ask, &[other, focus], sum, 0, 0);
                }
                let (less, more) = if value < amount { (other, focus) } else { (focus, other) };
                let difference = self.step(None, self.amounts[more], Op::Sub, self.amounts[less])?;
                (difference > 0).then_some(())?;
                self.finish(rng, ask, &[less, more], difference, 0, 0)
            }
            Says::AskThree => {
                let [a, b, c] = self.amounts[..] else { return None };
                let two = self.step(None, a, Op::Add, b)?;
                let all = self.step(None, two, Op::Add, c)?;
                self.finish(rng, ask, &[0, 1, 2], all, 0, 0)
            }
            _ => None,
        }
    }

    /// A second person for the question: the one before in the story, or a new one with an amount of her own.
    fn other(&mut self, rng: &mut Rng, focus: usize) -> Option<usize> {
        if focus > 0 {
            return Some(focus - 1);
        }
        let next = self.amounts.len();
        let n = rng.range(3, 40);
        self.amounts.push(n);
        self.say(rng, Says::Has, &[next], n, 0);
        Some(next)
    }

    /// Writes a step down, as the calculation of a person or of what is asked.
    fn step(&mut self, person: Option<usize>, a: i64, op: Op, b: i64) -> Option<i64> {
        let step: Step = step_for(self.split, a, op, b).filter(|step| step.value() >= 2)?;
        let label = person.map(|person| self.scene.name(person).to_string());
        self.steps.push(label.map_or_else(|| step.to_string(), |label| format!("{label} {step}")));
        Some(step.value())
    }

    fn say(&mut self, rng: &mut Rng, says: Says, people: &[usize], n: i64, k: i64) {
        let again = matches!(people, [one] if self.about == Some(*one));
        let told = Told { says, people, n, k, fresh: self.split == Split::HeldOut, again };
        let sentence = self.scene.sentence(rng, &told);
        self.about = if let [one] = people { Some(*one) } else { None };
        let asks = matches!(says, Says::AskAmount | Says::AskShare | Says::AskPrice);
        let joined = match (self.sentences.last(), people) {
            (Some(before), &[person]) if again && !asks && rng.chance(JOINED) => {
                self.scene.joined(before, &sentence, person)
            }
            _ => None,
        };
        match joined {
            Some(both) => *self.sentences.last_mut().expect("a sentence before") = both,
            None => self.sentences.push(sentence),
        }
    }

    fn finish(&mut self, rng: &mut Rng, ask: Says, people: &[usize], answer: i64, n: i64, k: i64) -> Option<()> {
        self.say(rng, ask, people, n, k);
        let label = self.scene.label(ask);
        if !label.is_empty()
            && let Some(last) = self.steps.last_mut()
        {
            *last = format!("{label} {last}");
        }
        self.answer = answer;
        (answer > 0).then_some(())
    }
}

/// A cast with the people of a sentence.
pub(crate) fn cast_of(people: &[(&str, bool)]) -> Cast {
    let mut cast = Cast::default();
    for ((variable, letter), (name, female)) in [("A", 'A'), ("B", 'B'), ("C", 'C')].into_iter().zip(people) {
        cast.set(variable, *name).set_female(letter, *female);
    }
    cast
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::arabic_forms::ARABIC_THEMES;
    use super::english_forms::ENGLISH_THEMES;
    use super::*;

    /// Texts that the last form of a list can become and so can one of the others, names and numbers left as variables.
    fn seen(forms: &[&str]) -> BTreeSet<String> {
        let texts = |forms: &[&str]| -> BTreeSet<String> {
            let expand = |i: u64, form| Cast::default().expand(form, &mut Rng::new(0, "forms", i));
            forms.iter().flat_map(|form| (0..300).map(move |i| expand(i, form))).collect()
        };
        let Some((last, known)) = forms.split_last() else { return BTreeSet::new() };
        texts(&[last]).intersection(&texts(known)).cloned().collect()
    }

    #[test]
    fn pronouns_and_joined_sentences() {
        let english = |form: &str| english::with_pronoun(form, false).unwrap_or_default();
        assert_eq!(english("{A} buys {n}."), "<he/she> buys {n}.");
        assert_eq!(english("[Later|Then] {A} buys {n}."), "[Later|Then] <he/she> buys {n}.");
        assert_eq!(english("{n} of {A}'s {things} are lost."), "{n} of <his/her> {things} are lost.");
        assert_eq!(english("How many {things} does {A} have?"), "How many {things} does <he/she> have?");
        assert_eq!(english("{B} has {n} more than {A}."), "");
        assert_eq!(english("[A friend|An aunt] gives {A} {n}."), "", "him, not he");
        assert_eq!(english("{A} has {n}, and {A} smiles."), "", "one of two would stay a name");
        assert_eq!(english::with_pronoun("Next {n} leave {A}.", true).expect("a thing is it"), "Next {n} leave it.");
        assert_eq!(arabic::with_pronoun("ثم <باع/باعت> {A} {no}.").expect("a verb"), "ثم <باع/باعت> {no}.");
        assert_eq!(arabic::with_pronoun("كم {acc} لدى {A} الآن؟").expect("with"), "كم {acc} <لديه/لديها> الآن؟");

        let (mut pronouns, mut joined) = (0, 0);
        for (language, words) in [
            (Language::English, [" she ", " he ", "He ", "She "]),
            (Language::Arabic, [" لديه ", " لديها ", " معه ", " معها "]),
        ] {
            for i in 0..2000 {
                let worked = word_problem(&mut Rng::new(5, "pronouns", i), Split::Pretrain, 4, language);
                let question = &worked.problem.question;
                pronouns += usize::from(words.iter().any(|word| question.contains(word)));
                joined += usize::from(
                    [", then ", " and then ", "، ثم ", "، وبعد ذلك "].iter().any(|word| question.contains(word)),
                );
                assert!(!question.contains(['{', '<', '[']) && !question.contains(".."), "{question}");
            }
        }
        assert!(pronouns > 500 && joined > 200, "{pronouns} with a pronoun, {joined} with a joined sentence");
    }

    #[test]
    fn no_problem_to_learn_from_has_a_held_out_sentence() {
        assert_eq!(seen(&["a [b|c].", "a c."]).len(), 1, "the check finds a form that is seen");
        for theme in ENGLISH_THEMES {
            for says in Says::ALL {
                assert_eq!(seen(theme.forms.of(says)), BTreeSet::new(), "{:?} {says:?}", theme.things[0]);
            }
        }
        for theme in ARABIC_THEMES {
            for says in Says::ALL {
                assert_eq!(seen(theme.forms.of(says)), BTreeSet::new(), "{:?} {says:?}", theme.things[0]);
            }
        }
    }

    #[test]
    fn held_out_sentences_are_made_of_known_words() {
        let english: Vec<&Forms> = ENGLISH_THEMES.iter().map(|theme| &theme.forms).collect();
        let arabic: Vec<&Forms> = ARABIC_THEMES.iter().map(|theme| &theme.forms).collect();
        for says in Says::ALL {
            for themes in [&english, &arabic] {
                let lists: Vec<&[&str]> = themes.iter().map(|forms| forms.of(says)).filter(|l| !l.is_empty()).collect();
                let known = words(lists.iter().flat_map(|list| &list[..list.len() - 1]));
                let held_out = words(lists.iter().filter_map(|list| list.last()));
                let unknown: Vec<_> = held_out.difference(&known).collect();
                assert!(unknown.is_empty(), "{says:?}: {unknown:?} are in no form to learn from");
            }
        }
    }

    /// The words of sentence forms, in small letters, without what stands for names and numbers.
    fn words<'a>(forms: impl Iterator<Item = &'a &'a str>) -> BTreeSet<String> {
        let of_form = |form: &&str| -> Vec<String> {
            let outside = |text: &str| text.split('}').next_back().unwrap_or_default().to_lowercase();
            let text: Vec<String> = form.split('{').map(outside).collect();
            let apart = |c: char| !c.is_alphabetic();
            text.join(" ").split(apart).filter(|word| !word.is_empty()).map(str::to_string).collect()
        };
        forms.flat_map(of_form).collect()
    }
}
