//! The models inside the program: what `fathom` without arguments serves.
//!
//! `models/nano/nano.gguf` was trained by the recipes of this repository (docs/zero.md) and is read where it lies in
//! the program's own file: nothing is unpacked or copied. `budgets.json` beside it is what `fathom eval` printed of the
//! same file, by the command in docs/zero.md.

use anyhow::Context;
use serde::Deserialize;
use server::wire::info::BudgetCurve;
use server::wire::usage::Words;

/// A model inside the program.
pub(crate) struct BuiltIn {
    /// By which commands and clients call it.
    pub(crate) name: &'static str,
    file: &'static Aligned<[u8]>,
    /// What `fathom eval --budgets .. --json` printed of it.
    budgets: &'static str,
}

/// The model that is served where none is named.
pub(crate) const DEFAULT: &str = NANO.name;

const NANO: BuiltIn = BuiltIn {
    name: "nano",
    file: &Aligned(*include_bytes!("../../../models/nano/nano.gguf")),
    budgets: include_str!("../../../models/nano/budgets.json"),
};

/// Tensors of a GGUF file lie at multiples of 32 bytes from its start.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

impl BuiltIn {
    /// The model of a name, if there is one.
    pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
        [&NANO].into_iter().find(|model| model.name == name)
    }

    /// The GGUF file.
    pub(crate) fn bytes(&self) -> &'static [u8] {
        &self.file.0
    }

    /// Its measured share of right answers by the most tokens of reasoning: the first task of `budgets.json`.
    ///
    /// # Errors
    /// If the file is not what `fathom eval` prints.
    pub(crate) fn budget_curve(&self) -> anyhow::Result<BudgetCurve> {
        let measured: Measured = serde_json::from_str(self.budgets).context("budgets.json of the built-in model")?;
        let figure = |budget: &Budget| budget.tasks.first().map(|task| (budget.budget, task.pass_at_1));
        let points: Option<Vec<(u32, f64)>> = measured.budgets.iter().map(figure).collect();
        let task = measured.budgets.first().and_then(|budget| budget.tasks.first());
        let (Some(points), Some(task)) = (points, task) else {
            anyhow::bail!("budgets.json of the built-in model has a budget without a task");
        };
        Ok(BudgetCurve { task: words(&task.task)?, points })
    }
}

/// What `fathom eval --budgets .. --json` prints, as far as it is read here.
#[derive(Deserialize)]
struct Measured {
    budgets: Vec<Budget>,
}

#[derive(Deserialize)]
struct Budget {
    budget: u32,
    tasks: Vec<Figure>,
}

#[derive(Deserialize)]
struct Figure {
    task: String,
    pass_at_1: f64,
}

/// The name of a task in the languages of the page.
fn words(task: &str) -> anyhow::Result<Words> {
    let (en, ar) = match task {
        "countdown3" => ("countdown with 3 numbers", "ألغاز الأعداد، ثلاثة أعداد"),
        "countdown4" => ("countdown with 4 numbers", "ألغاز الأعداد، أربعة أعداد"),
        other => anyhow::bail!("budgets.json of the built-in model has the task {other:?}, which has no words here"),
    };
    Ok(Words { en: en.into(), ar: ar.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_of_the_built_in_model_is_read_and_rises() {
        let curve = NANO.budget_curve().unwrap();
        assert!(curve.points.len() >= 4, "{curve:?}");
        assert!(curve.points.windows(2).all(|pair| pair[0].0 < pair[1].0), "{curve:?}");
        assert!(curve.points.iter().all(|&(_, share)| (0.0..=1.0).contains(&share)), "{curve:?}");
        let (first, last) = (curve.points[0].1, curve.points[curve.points.len() - 1].1);
        assert!(first < last, "more thinking helps: {curve:?}");
    }
}
