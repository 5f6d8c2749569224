//! Sums: pages of true equations and comparisons, and single questions in the chat format with their steps.

use eval::expression::Op;
use eval::rng::Rng;
use eval::tasks::arithmetic::{SUM_LEVELS, comparison, step_for, sum};
use eval::{Language, Split};

use super::chat::{Turn, chat};
use super::{Document, Source, plain};

/// How often each level of `sum` is asked, from 1.
const LEVEL_WEIGHTS: [u32; SUM_LEVELS as usize] = [2, 5, 5, 4, 4, 3, 2];

/// The corpus of sums.
pub(super) struct Sums {
    pub(super) seed: u64,
    pub(super) chat: f64,
    pub(super) arabic: f64,
}

impl Source for Sums {
    fn name(&self) -> &'static str {
        "sums"
    }

    fn origin(&self) -> String {
        "True equations, comparisons and worked sums up to 999, generator version 1; held-out sums excluded by hash."
            .into()
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "sums", index);
        let rng = &mut rng;
        if !rng.chance(self.chat) {
            let lines: Vec<String> = (0..rng.range(16, 36)).map(|_| line(rng)).collect();
            return plain("sums/page", lines.join("\n"));
        }
        let language = if rng.chance(self.arabic) { Language::Arabic } else { Language::English };
        let (kind, worked) = if rng.chance(0.1) {
            ("sums/compare", comparison(rng, Split::Pretrain, language))
        } else {
            let level = rng.weighted(&LEVEL_WEIGHTS) as u8 + 1;
            ("sums/chat", sum(rng, Split::Pretrain, level, language))
        };
        let turn = Turn { user: worked.problem.question, think: worked.steps.join("\n"), answer: worked.answer };
        chat(rng, kind, vec![turn], 0.05)
    }
}

/// One line of a page: an equation, a comparison, or an expression with its steps.
fn line(rng: &mut Rng) -> String {
    let weights = [LEVEL_WEIGHTS[0], 10, 10, 3, 2, 1, 2];
    match rng.below(10) {
        0 => {
            let top = *rng.choose(&[20, 99, 999]);
            let (a, b) = (rng.range(0, top), rng.range(0, top));
            let sign = ['<', '=', '>'][(a.cmp(&b) as i8 + 1) as usize];
            format!("{a}{sign}{b}")
        }
        // What countdown plays with: small numbers and what comes of them.
        1..=4 => {
            let top = *rng.choose(&[20, 50, 99, 400]);
            loop {
                let op = *rng.choose(&Op::ALL);
                let (a, b) = (rng.range(1, top), rng.range(1, if op == Op::Div { 12 } else { 99 }));
                let (a, b) = if op == Op::Sub { (a.max(b), a.min(b)) } else { (a, b) };
                let a = if op == Op::Div { a * b } else { a };
                if let Some(step) = step_for(Split::Pretrain, a, op, b).filter(|_| a <= 999) {
                    return step.to_string();
                }
            }
        }
        _ => {
            let level = rng.weighted(&weights) as u8 + 1;
            let worked = sum(rng, Split::Pretrain, level, Language::English);
            if worked.steps.len() == 1 {
                return worked.steps.concat();
            }
            let text = worked.problem.key.strip_prefix("sum ").unwrap_or_default().to_string();
            format!("{text}: {}", worked.steps.join(", "))
        }
    }
}
