//! A report of one or two runs as a page that needs nothing else: HTML with SVG inside, no script.

mod svg;

use std::path::Path;

use crate::export::Finished;
use crate::files;
use crate::run::RunError;
use crate::run::log::Line;
use svg::{Curve, heat_map, plot};

/// Columns of a heat map.
const COLUMNS: usize = 80;

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

/// Writes the report of these runs (the first two) to `path`.
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
    let runs = &runs[..runs.len().min(2)];
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = escaped(&names.join(" and "));
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><h1>{title}</h1>"
    );
    if runs.len() == 2 {
        let keys = runs
            .iter()
            .zip(["a", "b"])
            .map(|(run, class)| format!("<span class=\"key {class}\">\u{25ac}</span> {}", escaped(&run.name)));
        html += &format!("<p>{}</p>", keys.collect::<Vec<_>>().join(" &nbsp; "));
    }
    html += "<div class=\"tables\">";
    for run in runs {
        html += &summary(run)?;
    }
    html += "</div><div class=\"plots\">";
    html += &plots(runs);
    html += "</div>";
    for run in runs {
        html += &data(run);
    }
    Ok(html + "</body></html>\n")
}

const STYLE: &str = "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222;\
background:#fff}svg{width:100%;height:auto}text{font-size:11px;fill:#555}.grid{stroke:#ddd;fill:none}\
.curve{fill:none;stroke-width:1.4}.a{stroke:#1f5fbf}.a2{stroke:#8fb5ea}.b{stroke:#c2501d}.b2{stroke:#efb08f}\
circle.a,circle.a2{fill:#1f5fbf}circle.b,circle.b2{fill:#c2501d}.key.a{color:#1f5fbf}.key.b{color:#c2501d}\
.plots,.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:1.2em}figure{margin:0}\
figcaption{font-weight:600}table{border-collapse:collapse;margin:.5em 0}td,th{padding:.2em .8em .2em 0;\
text-align:left;border-bottom:1px solid #eee;vertical-align:top}";

/// Model, result and bill of a run.
fn summary(reported: &Reported) -> Result<String, RunError> {
    let run = &reported.run;
    let spec = run.recipe.spec()?;
    let counts = spec.counts();
    let mut rows = vec![
        ("parameters".to_string(), svg::number(counts.total as f64)),
        ("active for a token".to_string(), svg::number(counts.active as f64)),
        ("steps".to_string(), format!("{} of {}", run.state.step, run.recipe.steps())),
        ("skipped steps".to_string(), run.state.skipped.to_string()),
    ];
    if let Some(line) = run.log.last() {
        rows.push(("training loss".to_string(), format!("{:.4}", line.loss)));
    }
    if let Some(held_out) = run.held_out() {
        let bits = held_out.bits_per_byte;
        rows.push(("held-out loss".to_string(), format!("{:.4} ({bits:.4} bits a byte)", held_out.loss)));
        rows.extend(held_out.by_source.iter().map(|(name, bits)| (name.clone(), format!("{bits:.4} bits a byte"))));
    }
    if let Some((low, high)) = load_range(&run.log) {
        rows.push(("load of experts, last tenth".to_string(), format!("{low:.2} to {high:.2} of the mean")));
    }
    rows.extend(run.bill()?.rows().into_iter().map(|(what, how_much)| (what.to_string(), how_much)));
    let rows = rows.iter().map(|(what, how)| format!("<tr><td>{}</td><td>{}</td></tr>", escaped(what), escaped(how)));
    Ok(format!("<section><h2>{}</h2><table>{}</table></section>", escaped(&reported.name), rows.collect::<String>()))
}

/// The least and the greatest load of an expert over the last tenth of the steps, each averaged over these steps.
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
    let all = sums.iter().flatten().map(|sum| sum / lines);
    Some(all.fold((f32::INFINITY, 0.0), |(low, high), load| (low.min(load), high.max(load))))
}

fn plots(runs: &[Reported]) -> String {
    // Over tokens, so that runs of different batches can be compared.
    let curve = |of: &dyn Fn(&Line) -> Option<f64>, dots: bool, second: bool| -> Vec<Curve> {
        let classes = if second { ["a2", "b2"] } else { ["a", "b"] };
        let points = |run: &Reported| run.run.log.iter().filter_map(|l| Some((l.tokens as f64, of(l)?))).collect();
        runs.iter().zip(classes).map(|(run, class)| Curve { class, dots, points: points(run) }).collect()
    };
    let mut loss = curve(&|line| Some(line.loss), false, true);
    loss.extend(curve(&|line| line.held_out.as_ref().map(|held_out| held_out.loss), true, false));
    let bits = curve(&|line| line.held_out.as_ref().map(|held_out| held_out.bits_per_byte), true, false);
    let figures = [
        ("Loss, nats a token (dots: held-out)", plot("tokens", &loss, false)),
        ("Bits a byte of held-out text", plot("tokens", &bits, false)),
        ("Loss over time (hours)", plot("hours", &over_time(runs), false)),
        ("Loss of multi-token prediction", plot("tokens", &curve(&|line| line.mtp_loss, false, false), false)),
        ("Learning rate", plot("tokens", &curve(&|line| Some(line.learning_rate), false, false), false)),
        ("Gradient norm", plot("tokens", &curve(&|line| Some(line.gradient_norm), false, false), true)),
        ("Speed, tokens a second", plot("tokens", &curve(&|line| Some(line.tokens_per_second), false, false), false)),
    ];
    let mut html = String::new();
    for (caption, figure) in figures {
        let Some(figure) = figure else { continue };
        html += &format!("<figure><figcaption>{caption}</figcaption>{figure}</figure>");
    }
    for run in runs {
        if let Some(map) = loads(&run.run.log) {
            let name = escaped(&run.name);
            html += &format!(
                "<figure><figcaption>Load of experts, {name} (white: the mean; blue: a quarter; red: four times)\
                 </figcaption>{map}</figure>"
            );
        }
    }
    html
}

fn over_time(runs: &[Reported]) -> Vec<Curve> {
    let points = |run: &Reported| {
        let mut seconds = 0.0;
        let point = |line: &Line| {
            seconds += line.seconds;
            (seconds / 3600.0, line.loss)
        };
        run.run.log.iter().map(point).collect()
    };
    runs.iter().zip(["a", "b"]).map(|(run, class)| Curve { class, dots: false, points: points(run) }).collect()
}

/// A row for each expert of each layer, a column for some steps together.
fn loads(log: &[Line]) -> Option<String> {
    let steps: Vec<&Vec<Vec<f32>>> = log.iter().map(|line| &line.expert_load).filter(|l| !l.is_empty()).collect();
    let layers = steps.first()?.iter().map(Vec::len).collect::<Vec<usize>>();
    let group = steps.len().div_ceil(COLUMNS);
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for (layer, &experts) in layers.iter().enumerate() {
        for expert in 0..experts {
            let mean = |steps: &[&Vec<Vec<f32>>]| {
                let loads = steps.iter().filter_map(|loads| loads.get(layer)?.get(expert));
                loads.sum::<f32>() / steps.len() as f32
            };
            rows.push(steps.chunks(group).map(mean).collect());
            labels.push(if expert == 0 { format!("layer {}", layer + 1) } else { String::new() });
        }
    }
    heat_map(&rows, &labels, "steps")
}

/// The manifest of a run's data.
fn data(reported: &Reported) -> String {
    let rows = reported.run.manifest.sources.iter().map(|entry| {
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{}</td></tr>",
            escaped(&entry.name),
            escaped(&entry.licence),
            entry.documents,
            svg::number((entry.main_tokens + entry.decay_tokens) as f64),
            entry.epochs,
            escaped(&entry.origin)
        )
    });
    format!(
        "<h2>Data of {}</h2><table><tr><th>source</th><th>licence</th><th>documents</th><th>tokens</th><th>epochs</th>\
         <th>origin</th></tr>{}</table>",
        escaped(&reported.name),
        rows.collect::<String>()
    )
}

/// Text that stays text in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
