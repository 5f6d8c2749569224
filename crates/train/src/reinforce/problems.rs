//! Which problems a step asks: tasks by their shares, levels by how well they go.

use eval::rng::Rng;
use eval::tasks::lists::{ListTask, list_problem};
use eval::tasks::{arithmetic, countdown};
use eval::words;
use eval::{Language, Problem, Split};
use serde::{Deserialize, Serialize};

use super::recipe::Task;

/// How much a step's share of right answers moves the running one.
const MEMORY: f64 = 0.9;
/// Answers on a level before it can be left.
const ANSWERS_MIN: u64 = 256;

/// The tasks that ask, with their highest level.
const TASKS: [(&str, u8); 5] = [
    ("countdown", countdown::SIZES.len() as u8),
    ("sums", arithmetic::SUM_LEVELS),
    ("comparison", 1),
    ("words", words::OPERATIONS_MAX),
    ("lists", 3),
];

/// Whether there is such a task with such a level.
pub(super) fn check(task: &str, level: u8) -> Result<(), String> {
    match TASKS.iter().find(|(name, _)| *name == task) {
        None => Err(format!("one of {}", TASKS.map(|(name, _)| name).join(", "))),
        Some((_, most)) if level > *most => Err(format!("at most level {most}")),
        Some(_) => Ok(()),
    }
}

/// A problem of a task.
pub(super) fn problem(task: &str, rng: &mut Rng, split: Split, level: u8, language: Language) -> Problem {
    match task {
        "countdown" => countdown::puzzle(rng, split, level, language),
        "sums" => arithmetic::sum(rng, split, level, language).problem,
        "comparison" => arithmetic::comparison(rng, split, language).problem,
        "lists" => {
            let kind = *rng.choose(&ListTask::ALL);
            list_problem(rng, split, kind, level, language).problem
        }
        _ => words::word_problem(rng, split, level, language).problem,
    }
}

/// Where a task stands on its ladder.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
pub struct Rung {
    /// The level that is being learned.
    pub level: u8,
    /// Running share of right answers on it.
    pub right: f64,
    /// Answers given on it.
    pub answers: u64,
}

impl Rung {
    /// The start of a task's ladder.
    pub fn start(task: &Task) -> Rung {
        Rung { level: task.start.max(task.levels[0]), right: 0.0, answers: 0 }
    }

    /// Counts a step's answers on this level; goes up where they are good enough.
    pub fn count(&mut self, task: &Task, answers: u64, right: u64) {
        if answers == 0 {
            return;
        }
        let share = right as f64 / answers as f64;
        self.right = if self.answers == 0 { share } else { MEMORY * self.right + (1.0 - MEMORY) * share };
        self.answers += answers;
        if self.right >= task.promote_at && self.answers >= ANSWERS_MIN && self.level < task.levels[1] {
            *self = Rung { level: self.level + 1, right: 0.0, answers: 0 };
        }
    }
}

/// A problem of a step, with the task that asked it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) task: usize,
    pub(super) level: u8,
    pub(super) problem: Problem,
}

/// Problem `i` of step `step`: a pure function of the seed, the step and the rungs.
pub(super) fn ask(seed: u64, step: u64, i: u64, tasks: &[Task], rungs: &[Rung]) -> Asked {
    let mut rng = Rng::new(seed, "reinforce", step << 20 | i);
    let rng = &mut rng;
    let weights: Vec<u32> = tasks.iter().map(|task| (task.share * 1e6) as u32).collect();
    let at = rng.weighted(&weights);
    let (task, rung) = (&tasks[at], &rungs[at]);
    let low = task.levels[0];
    let level = match rung.level > low && rng.chance(task.easy_share) {
        true => rng.range(i64::from(low), i64::from(rung.level) - 1) as u8,
        false => rung.level,
    };
    let language = if rng.chance(task.arabic) { Language::Arabic } else { Language::English };
    Asked { task: at, level, problem: problem(&task.name, rng, Split::Reinforce, level, language) }
}

/// Problems that nobody learns from, the same at every evaluation.
pub(super) fn held_out(tasks: &[Task], seed: u64, count: usize) -> Vec<Asked> {
    let mut all = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        for level in task.levels[0]..=task.levels[1] {
            for i in 0..count as u64 {
                let mut rng = Rng::new(seed, &format!("held-out {} {level}", task.name), i);
                let language = if rng.chance(task.arabic) { Language::Arabic } else { Language::English };
                let problem = problem(&task.name, &mut rng, Split::HeldOut, level, language);
                all.push(Asked { task: at, level, problem });
            }
        }
    }
    all
}
