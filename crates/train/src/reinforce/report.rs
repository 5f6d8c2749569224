//! A page on runs of reinforcement learning: the first is told in full, the others (controls, seeds) beside it.
//!
//! Everything comes from the runs' own logs: reward, accuracy by difficulty, length, words that begin another attempt,
//! entropy, pass@k before and after, answers to the same problem along the way; and, from files that `fathom eval
//! --json` wrote, a table of stages in the form of R1's paper (table 3 of its second version).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use plot::{Axis, Chart, Page, Series, Style};
use serde_json::Value;

use super::log::{Line, Measured, Shown, read_log};
use super::recipe::Recipe;
use crate::files;
use crate::run::RunError;

/// Largest file of an evaluation.
const STAGE_BYTES_MAX: u64 = 16 << 20;
/// Steps whose mean a point of a curve is, at most: so that a curve has a hundred points or more.
const SMOOTH_MAX: usize = 8;

/// A run in a report.
pub struct Reported {
    name: String,
    recipe: Option<Recipe>,
    steps: Vec<Line>,
    evaluations: Vec<Measured>,
}

/// The figures of a model that stands for a stage.
pub struct Stage {
    name: String,
    /// Of each task, all levels together: pass@1, majority, share in form.
    tasks: BTreeMap<String, [f64; 3]>,
}

/// Whether the folder holds a run of reinforcement learning.
pub fn is_run(folder: &Path) -> bool {
    folder.join("evaluations.jsonl").is_file()
}

impl Reported {
    /// Reads the logs in `folder`.
    ///
    /// # Errors
    /// If they cannot be read, or hold nothing.
    pub fn read(folder: &Path) -> Result<Reported, RunError> {
        let (steps, evaluations) = read_log(folder)?;
        if steps.is_empty() && evaluations.is_empty() {
            return Err(RunError::Model(format!(
                "{}: its logs are empty: there is nothing to report",
                folder.display()
            )));
        }
        let recipe = std::fs::read_to_string(folder.join(crate::pretrain::layout::RECIPE));
        let recipe = recipe.ok().and_then(|text| serde_json::from_str(&text).ok());
        let name = folder.file_name().map_or_else(|| "run".to_string(), |name| name.to_string_lossy().into_owned());
        Ok(Reported { name, recipe, steps, evaluations })
    }
}

impl Stage {
    /// Reads what `fathom eval --json` printed.
    ///
    /// # Errors
    /// If the file cannot be read or is something else.
    pub fn read(name: &str, path: &Path) -> Result<Stage, RunError> {
        let fail = |source| RunError::Read { path: path.to_path_buf(), source };
        let bytes = std::fs::metadata(path).map_err(fail)?.len();
        if bytes > STAGE_BYTES_MAX {
            let limit = format!("{}: has {bytes} bytes; the limit is {STAGE_BYTES_MAX}", path.display());
            return Err(RunError::Model(limit));
        }
        let text = std::fs::read_to_string(path).map_err(fail)?;
        let other = || RunError::Model(format!("{}: is not what `fathom eval --json` prints", path.display()));
        let value: Value = serde_json::from_str(&text).map_err(|_| other())?;
        let mut tasks = BTreeMap::new();
        for task in value["tasks"].as_array().ok_or_else(other)? {
            let name = task["task"].as_str().ok_or_else(other)?;
            let figure = |key: &str| task[key].as_f64().ok_or_else(other);
            if task["level"].is_null() {
                tasks.insert(name.to_string(), [figure("pass_at_1")?, figure("majority")?, figure("format_ok")?]);
            }
        }
        Ok(Stage { name: name.to_string(), tasks })
    }
}

/// Writes the page to `path`.
///
/// # Errors
/// If it cannot be written.
pub fn write(runs: &[Reported], stages: &[Stage], path: &Path) -> Result<(), RunError> {
    let text = page(runs, stages);
    let written = files::write_whole(path, |out| out.write_all(text.as_bytes()));
    written.map(|_| ()).map_err(|source| RunError::Write { path: PathBuf::from(path), source })
}

/// The page: the first run in full, the others beside it.
///
/// # Panics
/// If there is no run.
pub fn page(runs: &[Reported], stages: &[Stage]) -> String {
    let main = &runs[0];
    let mut page = Page::new(format!("Reinforcement learning: {}", main.name));
    summary(&mut page, main);
    before_and_after(&mut page, main);
    curves(&mut page, runs);
    by_difficulty(&mut page, main);
    if runs.len() > 1 {
        beside(&mut page, runs);
    }
    if !stages.is_empty() {
        table_of_stages(&mut page, stages);
    }
    samples(&mut page, main);
    page.html()
}

fn summary(page: &mut Page, run: &Reported) {
    let steps = &run.steps;
    let Some(last) = steps.last() else { return };
    let sum = |of: &dyn Fn(&Line) -> f64| steps.iter().map(of).sum::<f64>();
    let (sampled, learned) = (sum(&|l| l.tokens as f64), sum(&|l| l.learned_tokens as f64));
    let (rollout, learn) = (sum(&|l| l.rollout_seconds), sum(&|l| l.learn_seconds));
    let difference = steps.iter().map(|line| line.logprob_difference).fold(0.0, f64::max);
    let mut rows = vec![
        row("steps", format!("{}", last.step)),
        row("answers sampled, tokens", plot::short(sampled)),
        row("learned from, tokens", plot::short(learned)),
        row("hours of sampling and of learning", format!("{:.2} + {:.2}", rollout / 3600.0, learn / 3600.0)),
        row("sampled a second while sampling, tokens", format!("{:.0}", sampled / rollout.max(1e-9))),
        row("largest difference between sampler and learner, log-probability", format!("{difference}")),
    ];
    if let Some(recipe) = &run.recipe {
        let r = &recipe.reinforce;
        rows.push(row("problems and answers a step", format!("{} x {}", r.prompts, r.group)));
        rows.push(row("learning rate, seed", format!("{}, {}", recipe.optimizer.lr, recipe.seed)));
        let reward = format!("{} right and in form, {} form, {} language", r.correct, r.format, r.language);
        rows.push(row("reward", reward));
    }
    page.table(&["", ""], &rows);
}

fn row(what: &str, value: String) -> Vec<String> {
    vec![what.to_string(), value]
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// pass@k of the first and the last evaluation that sampled several answers.
fn before_and_after(page: &mut Page, run: &Reported) {
    let mut measured = run.evaluations.iter().filter(|measured| !measured.pass_at.is_empty());
    let (Some(before), after) = (measured.next(), measured.next_back()) else { return };
    let k = before.pass_at.values().filter_map(|curve| curve.last()).map(|(k, _)| *k).max().unwrap_or(1);
    page.heading(&format!("pass@1 and pass@{k}, before and after, on held-out problems"));
    page.text(
        "Where pass@1 rises above what pass@k was, the model does what it could not do in k tries before; where \
         only pass@1 rises, it has become sure of what it could do.",
    );
    let share = |measured: Option<&Measured>, name: &str, at: usize| {
        let curve = measured.and_then(|measured| measured.pass_at.get(name));
        let value = curve.and_then(|curve| if at == 0 { curve.first() } else { curve.last() });
        value.map_or_else(String::new, |(_, share)| percent(*share))
    };
    let rows: Vec<Vec<String>> = before
        .pass_at
        .keys()
        .map(|name| {
            let cells = [(Some(before), 0), (after, 0), (Some(before), 1), (after, 1)];
            std::iter::once(name.clone()).chain(cells.iter().map(|(m, at)| share(*m, name, *at))).collect()
        })
        .collect();
    let (first, last) = (format!("pass@{k} before"), format!("pass@{k} after"));
    page.table(&["task and level", "pass@1 before", "pass@1 after", &first, &last], &rows);
    for task in tasks_of(before.pass_at.keys()) {
        let mut series = Vec::new();
        for (measured, style) in [(Some(before), Style::Dashed), (after, Style::Both)] {
            let Some(measured) = measured else { continue };
            let of_task = measured.pass_at.iter().filter(|(name, _)| task_of(name) == task);
            for (name, curve) in of_task {
                let points = curve.iter().map(|(k, share)| (f64::from(*k), 100.0 * share)).collect();
                let when = if style == Style::Dashed { "before" } else { "after" };
                series.push(Series::line(format!("{name} {when}"), points).styled(style));
            }
        }
        let y = Axis::new("solved, %").including(0.0).including(100.0);
        let title = format!("{task}: share solved in k tries");
        page.figure(&Chart { title, x: Axis::log("tries k"), y, series }.svg());
    }
}

fn task_of(name: &str) -> &str {
    name.rsplit_once(' ').map_or(name, |(task, _)| task)
}

fn tasks_of<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    names.map(|name| task_of(name)).collect()
}

/// A curve over the steps of a run, each point the mean of a few of them.
fn curve(run: &Reported, of: &dyn Fn(&Line) -> Option<f64>) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = run.steps.iter().filter_map(|line| Some((line.step as f64, of(line)?))).collect();
    let group = (points.len() / 100).clamp(1, SMOOTH_MAX);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(group).map(mean).collect()
}

/// A value of a step, where it has one.
type Value1<'a> = &'a dyn Fn(&Line) -> Option<f64>;

fn curves(page: &mut Page, runs: &[Reported]) {
    page.heading("Over the run");
    let charts: [(&str, &str, &[(&str, Value1)]); 7] = [
        ("Mean reward", "reward", &[("", &|l| Some(l.reward))]),
        (
            "Answers that are right, and in the right form",
            "share, %",
            &[("right", &|l| Some(100.0 * l.correct)), ("in form", &|l| Some(100.0 * l.format))],
        ),
        ("Length of an answer", "tokens", &[("mean", &|l| Some(l.length)), ("limit", &|l| Some(l.tokens_max as f64))]),
        (
            "Answers with words that begin another attempt",
            "share, %, and attempts",
            &[("share", &|l| Some(100.0 * l.retry_share)), ("further attempts, mean", &|l| Some(l.retries))],
        ),
        ("Entropy of the choices", "nats a token", &[("", &|l| (l.learned_tokens > 0).then_some(l.entropy))]),
        (
            "Groups without variance, and answers repeated word for word",
            "share, %",
            &[("groups", &|l| Some(100.0 * l.equal_groups)), ("repeated", &|l| Some(100.0 * l.repeated))],
        ),
        ("Norm of the gradient", "norm", &[("", &|l| (l.learned_tokens > 0).then_some(l.gradient_norm))]),
    ];
    for (title, unit, values) in charts {
        let mut series = Vec::new();
        for run in runs {
            for (name, of) in values {
                let name = match (runs.len() > 1, name.is_empty()) {
                    (true, true) => run.name.clone(),
                    (true, false) => format!("{}: {name}", run.name),
                    (false, _) => name.to_string(),
                };
                let style = if *name == *"limit" || name.ends_with(": limit") { Style::Dashed } else { Style::Line };
                series.push(Series::line(name, curve(run, of)).styled(style));
            }
        }
        let chart = Chart { title: title.into(), x: Axis::new("step"), y: Axis::new(unit).including(0.0), series };
        page.figure(&chart.svg());
    }
}

/// Held-out accuracy of every level over the run, and where the ladder stood.
fn by_difficulty(page: &mut Page, run: &Reported) {
    page.heading("Accuracy by difficulty, held-out problems");
    let names: BTreeSet<&String> = run.evaluations.iter().flat_map(|measured| measured.by_task.keys()).collect();
    for task in tasks_of(names.iter().copied()) {
        let of_task = names.iter().filter(|name| task_of(name) == task);
        let series = of_task.map(|name| {
            let points = run.evaluations.iter().filter_map(|measured| {
                let [answers, right, _] = measured.by_task.get(*name)?;
                (*answers > 0).then(|| (measured.step as f64, 100.0 * *right as f64 / *answers as f64))
            });
            Series::line(name.to_string(), points.collect()).styled(Style::Both)
        });
        let y = Axis::new("right, %").including(0.0).including(100.0);
        let chart = Chart { title: task.to_string(), x: Axis::new("step"), y, series: series.collect() };
        page.figure(&chart.svg());
    }
    let Some(recipe) = &run.recipe else { return };
    let series = recipe.tasks.iter().enumerate().map(|(at, task)| {
        let points = run.steps.iter().filter_map(|l| Some((l.step as f64, f64::from(*l.levels.get(at)?))));
        Series::line(task.name.clone(), points.collect())
    });
    let title = "Level that is being learned".to_string();
    let y = Axis::new("level").including(0.0);
    page.figure(&Chart { title, x: Axis::new("step"), y, series: series.collect() }.svg());
}

/// The last evaluation of every run, task by task.
fn beside(page: &mut Page, runs: &[Reported]) {
    page.heading("Runs side by side: held-out problems at the last evaluation");
    let last: Vec<Option<&Measured>> = runs.iter().map(|run| run.evaluations.last()).collect();
    let names: BTreeSet<&String> = last.iter().flatten().flat_map(|measured| measured.by_task.keys()).collect();
    let cell = |measured: &Option<&Measured>, name: &String| {
        let counts = measured.and_then(|measured| measured.by_task.get(name));
        counts.map_or_else(String::new, |[answers, right, _]| percent(*right as f64 / (*answers).max(1) as f64))
    };
    let mut rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| std::iter::once(name.to_string()).chain(last.iter().map(|m| cell(m, name))).collect())
        .collect();
    let steps = last.iter().map(|measured| measured.map_or_else(String::new, |measured| measured.step.to_string()));
    rows.push(std::iter::once("at step".to_string()).chain(steps).collect());
    let head: Vec<&str> = std::iter::once("task and level").chain(runs.iter().map(|run| run.name.as_str())).collect();
    page.table(&head, &rows);
}

fn table_of_stages(page: &mut Page, stages: &[Stage]) {
    page.heading("Stages, in the form of the paper's table");
    let names: BTreeSet<&String> = stages.iter().flat_map(|stage| stage.tasks.keys()).collect();
    let head: Vec<&str> = std::iter::once("pass@1").chain(stages.iter().map(|stage| stage.name.as_str())).collect();
    let table = |of: usize| -> Vec<Vec<String>> {
        let cell = |stage: &Stage, name: &str| stage.tasks.get(name).map_or_else(String::new, |f| percent(f[of]));
        let row = |name: &&String| {
            std::iter::once(name.to_string()).chain(stages.iter().map(|stage| cell(stage, name))).collect()
        };
        names.iter().map(row).collect()
    };
    page.table(&head, &table(0));
    page.text("Share of answers in the form that was asked for:");
    let head: Vec<&str> = std::iter::once("in form").chain(head[1..].iter().copied()).collect();
    page.table(&head, &table(2));
}

/// Answers to the same problem along the way: at the first evaluation, near steps 50 and 100, at the last.
fn samples(page: &mut Page, run: &Reported) {
    let Some(first) = run.evaluations.first() else { return };
    let mut chosen: Vec<&Measured> = Vec::new();
    for wanted in [0, 50, 100, u64::MAX] {
        let nearest = run.evaluations.iter().min_by_key(|measured| measured.step.abs_diff(wanted));
        chosen.extend(nearest.filter(|measured| chosen.last().is_none_or(|last| last.step < measured.step)));
    }
    page.heading("The same problem along the way");
    for shown in &first.shown {
        page.text(&format!("{}: {}", shown.task, shown.question));
        for measured in &chosen {
            let same = |other: &&Shown| other.task == shown.task && other.question == shown.question;
            let Some(answer) = measured.shown.iter().find(same) else { continue };
            let mark = if answer.correct { "right" } else { "wrong" };
            let said = answer.answer.as_deref().unwrap_or("(no answer)").trim();
            let reasoning = answer.reasoning.trim();
            page.verbatim(&format!("step {}, {mark}\n{reasoning}\n</think>\n{said}", measured.step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(step: u64, right: u64) -> Measured {
        let shown = Shown {
            task: "countdown 2".into(),
            question: "Make <5> from 2 & 3.".into(),
            reasoning: format!("2+3=5 at {step}"),
            answer: Some("2+3".into()),
            correct: right > 4,
        };
        let curve = vec![(1, right as f64 / 8.0), (2, 0.9)];
        Measured {
            step,
            by_task: [("countdown 2".to_string(), [8, right, 80])].into(),
            pass_at: if step == 50 { BTreeMap::new() } else { [("countdown 2".to_string(), curve)].into() },
            shown: vec![shown],
        }
    }

    fn run(name: &str) -> Reported {
        let steps = (1..=100).map(|step| Line { step, reward: step as f64 / 100.0, ..Line::default() }).collect();
        let evaluations = vec![measured(0, 1), measured(50, 4), measured(100, 7)];
        Reported { name: name.into(), recipe: None, steps, evaluations }
    }

    #[test]
    fn a_page_tells_a_run_from_its_logs() {
        let text = page(&[run("zero")], &[]);
        for wanted in ["pass@1 before", "12.5 %", "87.5 %", "Mean reward", "step 0, wrong", "step 100, right"] {
            assert!(text.contains(wanted), "{wanted}");
        }
        assert!(text.contains("Make &lt;5&gt; from 2 &amp; 3."), "questions are text");
        assert!(!text.contains("side by side") && !text.contains("Stages"));
    }

    #[test]
    fn controls_and_stages_stand_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("eval.json");
        let task = r#"{"task":"countdown3","level":null,"pass_at_1":0.5,"majority":0.6,"format_ok":0.99}"#;
        std::fs::write(&path, format!(r#"{{"tasks":[{task}]}}"#)).expect("written");
        let stage = Stage::read("R1", &path).expect("a stage");
        let text = page(&[run("zero"), run("random")], &[stage]);
        for wanted in ["side by side", "<th", "random", "countdown3", "50.0 %", "99.0 %"] {
            assert!(text.contains(wanted), "{wanted}");
        }
        std::fs::write(&path, "[1]").expect("written");
        let error = Stage::read("R1", &path).err().expect("refused").to_string();
        assert!(error.contains("eval.json") && error.contains("fathom eval --json"), "{error}");
    }
}
