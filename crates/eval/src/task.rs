//! Tasks by name: problems from generators, from files, with the levels that they have.

use std::collections::BTreeSet;

use crate::problem::{Language, Problem, Split};
use crate::rng::Rng;
use crate::tasks::arithmetic::{SUM_LEVELS, comparison, sum};
use crate::tasks::countdown::{SIZES, Size, puzzle};
use crate::tasks::lists::{ListTask, list_problem};
use crate::words::{OPERATIONS_MAX, word_problem};

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Sums of levels 2 to 7.
    Arithmetic,
    /// Which number is larger.
    Compare,
    /// Countdown with so many numbers, 2 to 4.
    Countdown(u8),
    /// Word problems of 1 to 6 operations.
    Words(Language),
    /// Lists and prescribed forms.
    List(ListTask),
    /// Grade-school mathematics (Cobbe et al. 2021), from a file.
    Gsm8k,
    /// Word problems with variations (Patel et al. 2021), from a file.
    Svamp,
    /// Multiple choice in MMLU's form, from a file.
    Choice,
    /// Programs (Chen et al. 2021), from a file; run in a sandbox.
    HumanEval,
}

impl Task {
    /// All tasks, generated ones first.
    pub fn all() -> Vec<Task> {
        let mut all = vec![Task::Arithmetic, Task::Compare];
        all.extend([2, 3, 4].map(Task::Countdown));
        all.extend([Language::English, Language::Arabic].map(Task::Words));
        all.extend(ListTask::ALL.map(Task::List));
        all.extend([Task::Gsm8k, Task::Svamp, Task::Choice, Task::HumanEval]);
        all
    }

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Task::Arithmetic => "arithmetic",
            Task::Compare => "compare",
            Task::Countdown(2) => "countdown2",
            Task::Countdown(3) => "countdown3",
            Task::Countdown(_) => "countdown4",
            Task::Words(Language::English) => "words",
            Task::Words(Language::Arabic) => "words_ar",
            Task::List(task) => task.name(),
            Task::Gsm8k => "gsm8k",
            Task::Svamp => "svamp",
            Task::Choice => "choice",
            Task::HumanEval => "humaneval",
        }
    }

    /// The task of a name.
    pub fn of_name(name: &str) -> Option<Task> {
        Task::all().into_iter().find(|task| task.name() == name)
    }

    /// Whether its problems come from a file.
    pub fn needs_file(self) -> bool {
        matches!(self, Task::Gsm8k | Task::Svamp | Task::Choice | Task::HumanEval)
    }

    /// Problem `index` of a generated task; `None` for tasks from files.
    pub fn problem(self, seed: u64, index: u64, split: Split) -> Option<Problem> {
        let mut rng = Rng::new(seed, self.name(), index);
        let rng = &mut rng;
        // Levels in turn, so that each has its share of however many problems are asked for.
        let level = |first: u8, last: u8| first + (index % u64::from(last - first + 1)) as u8;
        Some(match self {
            Task::Arithmetic => sum(rng, split, level(2, SUM_LEVELS), Language::English).problem,
            Task::Compare => comparison(rng, split, Language::English).problem,
            Task::Countdown(numbers) => {
                let fits = |size: &Size| size.numbers == usize::from(numbers);
                let (first, last) = (SIZES.iter().position(fits)?, SIZES.iter().rposition(fits)?);
                puzzle(rng, split, level(first as u8 + 1, last as u8 + 1), Language::English)
            }
            Task::Words(language) => word_problem(rng, split, level(1, OPERATIONS_MAX), language).problem,
            Task::List(task) => list_problem(rng, split, task, level(1, 3), Language::English).problem,
            Task::Gsm8k | Task::Svamp | Task::Choice | Task::HumanEval => return None,
        })
    }

    /// So many different problems of a generated task, or all if there are fewer.
    pub fn problems(self, seed: u64, count: usize, split: Split) -> Vec<Problem> {
        let mut seen = BTreeSet::new();
        let tries = count.saturating_mul(20) as u64;
        let all = (0..tries).map_while(|index| self.problem(seed, index, split));
        all.filter(|problem| seen.insert(problem.key.clone())).take(count).collect()
    }

    /// What to add to a question for models that do not know the form of the answer.
    pub fn instruction(self) -> &'static str {
        match self {
            Task::Countdown(_) => "End with a line that holds only the expression, such as (12-4)*3.",
            Task::Words(Language::Arabic) => "اختم بسطر فيه العدد فقط.",
            Task::Choice => "End with a line that holds only the letter of the right choice.",
            Task::HumanEval => "End with the whole function in one block of ```python.",
            Task::List(_) => "Answer with nothing but the result.",
            _ => "End with a line that holds only the number.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_problems_and_parts_do_not_meet() {
        for task in Task::all() {
            assert_eq!(Task::of_name(task.name()), Some(task));
            assert_eq!(task.problem(0, 0, Split::HeldOut).is_none(), task.needs_file());
            let held_out = task.problems(1, 60, Split::HeldOut);
            assert_eq!(held_out, task.problems(1, 60, Split::HeldOut));
            let keys: BTreeSet<&String> = held_out.iter().map(|problem| &problem.key).collect();
            assert_eq!(keys.len(), held_out.len());
            let others = task.problems(2, 300, Split::Reinforce);
            assert!(others.iter().all(|problem| !keys.contains(&problem.key)), "{}", task.name());
            assert!(held_out.iter().all(|problem| problem.task == task.name()), "{}", task.name());
            if !task.needs_file() {
                // There are few puzzles of two numbers.
                assert!(held_out.len() >= 30, "{}: {}", task.name(), held_out.len());
            }
        }
    }
}
