//! Speed over depth as a drawing: a full line is what was measured, the broken one of the same colour what the machine
//! allows.

use ::plot::{Axis, Chart, Series, Style};

use super::figures::{Figures, Line};

/// The drawing, an SVG.
pub(super) fn draw(figures: &Figures) -> String {
    let cpu = figures.machine.cpu_name.as_deref().unwrap_or("unknown processor");
    let mut series = Vec::new();
    for (place, (name, lines)) in alike(&figures.lines).into_iter().enumerate() {
        let points = |value: fn(&Line) -> f64| lines.iter().map(|line| (line.depth as f64, value(line))).collect();
        let measured = Series::line(name, points(|line| line.tokens_per_s.best));
        series.push(measured.styled(Style::Both).coloured(place));
        // Without a name of its own: it belongs to what was measured.
        let limit = Series::line("", points(|line| line.limit_tokens_per_s));
        series.push(limit.styled(Style::Dashed).coloured(place));
    }
    let chart = Chart {
        title: format!("{} on {cpu}, cache in {}", figures.model, figures.format.name()),
        x: Axis::new("tokens in the cache before").including(0.0),
        y: Axis::log("tokens per second (broken: what the machine allows)"),
        series,
    };
    chart.svg() + "\n"
}

/// Lines that differ in depth alone, with their name.
fn alike(lines: &[Line]) -> Vec<(String, Vec<&Line>)> {
    let mut all: Vec<(String, Vec<&Line>)> = Vec::new();
    for line in lines {
        let name = format!("{}, {}", line.kind.text(), crate::commands::doctor::threads(line.threads));
        match all.iter_mut().find(|(other, _)| *other == name) {
            Some((_, points)) => points.push(line),
            None => all.push((name, vec![line])),
        }
    }
    all
}
