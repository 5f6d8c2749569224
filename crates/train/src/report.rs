//! A report of one run, or of several to compare them, as a page that needs nothing else.

use std::path::Path;

use plot::{Axis, Chart, HeatMap, Page, Series, Style};

use crate::bill::grouped;
use crate::export::Finished;
use crate::files;
use crate::run::RunError;
use crate::run::log::Line;

/// A run in a report.
pub struct Reported {
    /// Its name in the report.
    pub name: String,
    /// The run.
    pub run: Finished,
}

impl Reported {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// If there is no run, or none of its checkpoints is whole.
    pub fn read(folder: &Path, warn: &mut dyn FnMut(&str)) -> Result<Reported, RunError> {
        let run = Finished::read(folder, warn)?;
        let name =
            folder.file_name().map_or_else(|| run.recipe.name.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Reported { name, run })
    }
}

/// Writes the report of these runs to `path`.
///
/// # Errors
/// If it cannot be written.
pub fn write(runs: &[Reported], path: &Path) -> Result<(), RunError> {
    let page = page(runs)?;
    let written = files::write_whole(path, |out| out.write_all(page.as_bytes()));
    written.map(|_| ()).map_err(|source| RunError::Write { path: path.to_path_buf(), source })
}

/// The page.
///
/// # Errors
/// If a recipe's model is none.
pub fn page(runs: &[Reported]) -> Result<String, RunError> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let mut page = Page::new(names.join(" and "));
    page.table(&[&[""][..], &names].concat(), &summary(runs)?);
    for chart in charts(runs) {
        page.figure(&chart.svg());
    }
    for run in runs {
        if let Some(map) = loads(run) {
            page.figure(&map.svg());
        }
    }
    for run in runs {
        page.heading(&format!("Data of {}", run.name));
        page.table(&["source", "licence", "documents", "tokens", "epochs", "origin"], &data(run));
    }
    Ok(page.html())
}

/// Model, result and bill: a row for each figure, a column for each run.
fn summary(runs: &[Reported]) -> Result<Vec<Vec<String>>, RunError> {
    let columns: Vec<Vec<(String, String)>> = runs.iter().map(figures).collect::<Result<_, RunError>>()?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (i, column) in columns.iter().enumerate() {
        for (what, how_much) in column {
            let at = rows.iter().position(|row| row[0] == *what).unwrap_or_else(|| {
                rows.push([vec![what.clone()], vec![String::new(); runs.len()]].concat());
                rows.len() - 1
            });
            rows[at][i + 1].clone_from(how_much);
        }
    }
    Ok(rows)
}

/// What is known of a run, with names.
fn figures(reported: &Reported) -> Result<Vec<(String, String)>, RunError> {
    let run = &reported.run;
    let counts = run.recipe.spec()?.counts();
    let mut rows = vec![
        ("parameters".to_string(), grouped(counts.total)),
        ("active for a token".to_string(), grouped(counts.active)),
        ("steps".to_string(), format!("{} of {}", run.state.step, run.recipe.steps())),
        ("skipped steps".to_string(), run.state.skipped.to_string()),
    ];
    if let Some(lora) = &run.recipe.lora {
        let trained = format!("adapters of rank {}, {} numbers", lora.rank, grouped(run.state.elements));
        rows.push(("trained".to_string(), trained));
    }
    if let Some(line) = run.log.last() {
        rows.push(("training loss".to_string(), format!("{:.4}", line.loss)));
    }
    if let Some(held_out) = run.held_out() {
        rows.push(("held-out loss".to_string(), format!("{:.4}", held_out.loss)));
        rows.push(("held-out bits a byte".to_string(), format!("{:.4}", held_out.bits_per_byte)));
        rows.extend(
            held_out.by_source.iter().map(|(name, bits)| (format!("bits a byte of {name}"), format!("{bits:.4}"))),
        );
    }
    if let Some((low, high)) = load_range(&run.log) {
        rows.push(("load of experts, last tenth".to_string(), format!("{low:.2} to {high:.2} of the mean")));
    }
    rows.extend(run.bill()?.rows().into_iter().map(|(what, how_much)| (what.to_string(), how_much)));
    Ok(rows)
}

/// The least and the greatest load of an expert over the last tenth of the steps, each averaged over these steps.
/// Layers that saw no token do not count.
fn load_range(log: &[Line]) -> Option<(f32, f32)> {
    let last = &log[log.len() - log.len().div_ceil(10)..];
    let mut sums: Vec<Vec<f32>> = last.iter().map(|line| &line.expert_load).find(|loads| !loads.is_empty())?.clone();
    sums.iter_mut().flatten().for_each(|sum| *sum = 0.0);
    let (mut lines, layers) = (0.0, sums.len());
    for line in last.iter().filter(|line| line.expert_load.len() == layers) {
        let loads = line.expert_load.iter().flatten();
        sums.iter_mut().flatten().zip(loads).for_each(|(sum, load)| *sum += load);
        lines += 1.0;
    }
    let ran = |layer: &&Vec<f32>| layer.iter().any(|&sum| sum > 0.0);
    let all: Vec<f32> = sums.iter().filter(ran).flatten().map(|sum| sum / lines).collect();
    let first = *all.first()?;
    Some(all.into_iter().fold((first, first), |(low, high), load| (low.min(load), high.max(load))))
}

/// Curves over tokens, so that runs of different batches can be compared, and the loss over time; those that have
/// anything to show.
fn charts(runs: &[Reported]) -> Vec<Chart> {
    let series = |name: &str, style: Style, of: &dyn Fn(&Line) -> Option<f64>| -> Vec<Series> {
        let one = |run: &Reported| {
            let points = run.run.log.iter().filter_map(|line| Some((line.tokens as f64, of(line)?))).collect();
            Series::line(named(runs, run, name), points).styled(style)
        };
        runs.iter().map(one).collect()
    };
    let line = |of: &dyn Fn(&Line) -> Option<f64>| series("", Style::Line, of);
    let mut loss = line(&|line| Some(line.loss));
    let held_out = |line: &Line| line.held_out.as_ref().map(|held_out| held_out.loss);
    loss.extend(series("held out", Style::Both, &held_out));
    let bits = series("", Style::Both, &|line| line.held_out.as_ref().map(|held_out| held_out.bits_per_byte));
    let chart = |title: &str, x: &str, y: Axis, series: Vec<Series>| Chart {
        title: title.to_string(),
        x: Axis::new(x),
        y,
        series: series.into_iter().filter(|series| !series.points.is_empty()).collect(),
    };
    let all = vec![
        chart("Loss", "tokens", Axis::new("nats a token"), loss),
        chart("Held-out text", "tokens", Axis::new("bits a byte"), bits),
        chart("Loss over time", "hours", Axis::new("nats a token"), over_time(runs)),
        chart("Multi-token prediction", "tokens", Axis::new("nats a token"), line(&|line| line.mtp_loss)),
        chart("Learning rate", "tokens", Axis::new(""), line(&|line| Some(line.learning_rate))),
        chart("Gradient norm", "tokens", Axis::log(""), line(&|line| Some(line.gradient_norm))),
        chart("Speed", "tokens", Axis::new("tokens a second"), line(&|line| Some(line.tokens_per_second))),
    ];
    all.into_iter().filter(|chart| !chart.series.is_empty()).collect()
}

/// The name of a curve: that of the run where there are several, and what it shows where a chart has several of one.
fn named(runs: &[Reported], run: &Reported, what: &str) -> String {
    let of_run = if runs.len() > 1 { run.name.as_str() } else { "" };
    [of_run, what].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn over_time(runs: &[Reported]) -> Vec<Series> {
    let one = |run: &Reported| {
        let mut seconds = 0.0;
        let point = |line: &Line| {
            seconds += line.seconds;
            (seconds / 3600.0, line.loss)
        };
        Series::line(named(runs, run, ""), run.run.log.iter().map(point).collect())
    };
    runs.iter().map(one).collect()
}

/// A row for each expert of each layer that ran, a column for each step (or the mean of some).
fn loads(reported: &Reported) -> Option<HeatMap> {
    let log = &reported.run.log;
    let steps: Vec<&Vec<Vec<f32>>> = log.iter().map(|line| &line.expert_load).filter(|l| !l.is_empty()).collect();
    let (mut values, mut row_names) = (Vec::new(), Vec::new());
    for (layer, of_layer) in steps.last()?.iter().enumerate().filter(|(_, loads)| loads.iter().any(|&l| l > 0.0)) {
        for expert in 0..of_layer.len() {
            let load = |loads: &&Vec<Vec<f32>>| loads.get(layer)?.get(expert).copied();
            values.push(steps.iter().filter_map(load).map(f64::from).collect());
            row_names.push(format!("{}.{}", layer + 1, expert + 1));
        }
    }
    let name = &reported.name;
    Some(HeatMap {
        title: format!("Load of experts, {name} (share of the layer's mean)"),
        x_label: "steps".to_string(),
        y_label: "layer.expert".to_string(),
        x_ends: (log.first()?.step.to_string(), log.last()?.step.to_string()),
        row_names,
        values,
        range: Some((0.0, 2.0)),
    })
}

/// The manifest of a run's data.
fn data(reported: &Reported) -> Vec<Vec<String>> {
    let row = |entry: &crate::data::SourceEntry| {
        vec![
            entry.name.clone(),
            entry.licence.clone(),
            grouped(entry.documents),
            grouped(entry.main_tokens + entry.decay_tokens),
            format!("{:.2}", entry.epochs),
            entry.origin.clone(),
        ]
    };
    reported.run.manifest.sources.iter().map(row).collect()
}
