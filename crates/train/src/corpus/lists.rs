//! Copying, sorting, reversing, counting, finding, and answers in a prescribed form.

use eval::rng::Rng;
use eval::tasks::lists::{ListTask, list_problem};
use eval::{Language, Split};

use super::chat::{Turn, chat};
use super::{Document, Source};

/// The corpus of list tasks.
pub(super) struct Lists {
    pub(super) seed: u64,
    pub(super) arabic: f64,
}

impl Source for Lists {
    fn name(&self) -> &'static str {
        "lists"
    }

    fn origin(&self) -> String {
        "Lists to copy, sort, reverse, count and search, generator version 1; held-out lists excluded by hash.".into()
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "lists", index);
        let rng = &mut rng;
        let language = if rng.chance(self.arabic) { Language::Arabic } else { Language::English };
        let task = ListTask::ALL[rng.weighted(&[3, 4, 3, 2, 2, 3, 2])];
        let level = rng.weighted(&[4, 3, 2]) as u8 + 1;
        let worked = list_problem(rng, Split::Pretrain, task, level, language);
        let turn = Turn { user: worked.problem.question, think: worked.steps.join("\n"), answer: worked.answer };
        chat(rng, task.name(), vec![turn], 0.2)
    }
}
