//! Speed over depth as a drawing: one SVG without scripts, fonts or links.
//!
//! Decoding and prompts have a field of their own, each with a scale from zero; a full line is what
//! was measured, the dashed one of the same colour what the machine allows.

use std::fmt::Write;

use super::figures::{Figures, Kind, Line, rate};

const WIDTH: f64 = 760.0;
const FIELD_HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 45.0;
/// Told apart also by those who see few colours (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];

/// Lines that differ in depth alone.
struct Series<'a> {
    name: String,
    points: Vec<&'a Line>,
}

/// The drawing.
pub(super) fn draw(figures: &Figures) -> String {
    let is_decode = |line: &&Line| matches!(line.kind, Kind::Decode { .. });
    let fields: Vec<(&str, Vec<Series>)> = [
        ("decode", series(figures.lines.iter().filter(is_decode))),
        ("prompt", series(figures.lines.iter().filter(|line| !is_decode(line)))),
    ]
    .into_iter()
    .filter(|(_, series)| !series.is_empty())
    .collect();
    let height = FIELD_HEIGHT * fields.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let cpu = figures.machine.cpu_name.as_deref().unwrap_or("unknown processor");
    let title = format!("{} on {cpu}, cache in {}", figures.model, figures.format.name());
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>", escaped(&title));
    for (i, (name, series)) in fields.iter().enumerate() {
        draw_field(&mut svg, name, series, 10.0 + FIELD_HEIGHT * i as f64);
    }
    svg + "</svg>\n"
}

fn series<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<Series<'a>> {
    let mut all: Vec<Series> = Vec::new();
    for line in lines {
        let name = format!("{}, {}", line.kind.text(), crate::commands::doctor::threads(line.threads));
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(line),
            None => all.push(Series { name, points: vec![line] }),
        }
    }
    all
}

/// Where depths and speeds lie in a field.
struct Scale {
    /// Left and right end of the depths, bottom and top of the speeds.
    x: (f64, f64),
    y: (f64, f64),
    deepest: f64,
    step: f64,
    steps: usize,
}

impl Scale {
    fn of(points: &[&Line], top: f64) -> Scale {
        let most = points.iter().map(|p| p.tokens_per_s.best.max(p.limit_tokens_per_s)).fold(0.0, f64::max);
        let step = round_step(most);
        Scale {
            x: (LEFT, WIDTH - RIGHT),
            y: (top + FIELD_HEIGHT - BOTTOM, top + TOP),
            deepest: points.iter().map(|p| p.depth).max().unwrap_or(0).max(1) as f64,
            step,
            steps: ((most / step).ceil() as usize).max(1),
        }
    }

    fn x(&self, depth: usize) -> f64 {
        self.x.0 + (self.x.1 - self.x.0) * depth as f64 / self.deepest
    }

    fn y(&self, rate: f64) -> f64 {
        self.y.0 - (self.y.0 - self.y.1) * rate / (self.step * self.steps as f64)
    }
}

fn draw_field(svg: &mut String, name: &str, all: &[Series], top: f64) {
    let points: Vec<&Line> = all.iter().flat_map(|series| series.points.iter().copied()).collect();
    let scale = Scale::of(&points, top);
    draw_axes(svg, name, &points, &scale);
    for (i, series) in all.iter().enumerate() {
        draw_series(svg, series, COLOURS[i % COLOURS.len()], scale.y.1 + 16.0 * i as f64, &scale);
    }
    let (x, y) = (scale.x.1 + 14.0, scale.y.1 + 16.0 * all.len() as f64);
    let _ = writeln!(svg, "<path d=\"M{x} {y:.1}h18\" stroke=\"#555555\" stroke-dasharray=\"5 4\"/>");
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\">limit</text>", x + 24.0, y + 4.0);
}

fn draw_axes(svg: &mut String, name: &str, points: &[&Line], scale: &Scale) {
    let ((x0, x1), (y0, y1)) = (scale.x, scale.y);
    for i in 0..=scale.steps {
        // Rounded: 3 * 0.2 is not 0.6.
        let value = format!("{:.3}", i as f64 * scale.step);
        let value = value.trim_end_matches('0').trim_end_matches('.');
        let y = scale.y(i as f64 * scale.step);
        let _ = writeln!(svg, "<path d=\"M{x0} {y:.1}H{x1}\" stroke=\"#dddddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", x0 - 8.0, y + 4.0);
    }
    let mut depths: Vec<usize> = points.iter().map(|p| p.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let mut last = f64::NEG_INFINITY;
    for depth in depths {
        // Labels that would stand on each other are left out.
        let x = scale.x(depth);
        if x - last >= 40.0 {
            last = x;
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{depth}</text>", y0 + 18.0);
        }
    }
    let _ = writeln!(svg, "<text x=\"{x0}\" y=\"{:.1}\">{name}: tokens per second</text>", y1 - 10.0);
    let (x, y) = ((x0 + x1) / 2.0, y0 + 34.0);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">tokens in the cache before</text>");
}

/// One series: its limit, what was measured, and its name at height `at`.
fn draw_series(svg: &mut String, series: &Series, colour: &str, at: f64, scale: &Scale) {
    let path = |value: fn(&Line) -> f64| {
        let points = series.points.iter().map(|p| format!("{:.1} {:.1}", scale.x(p.depth), scale.y(value(p))));
        format!("M{}", points.collect::<Vec<_>>().join("L"))
    };
    let (limit, measured) = (path(|p| p.limit_tokens_per_s), path(|p| p.tokens_per_s.best));
    let _ = writeln!(svg, "<path d=\"{limit}\" fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"5 4\"/>");
    let _ = writeln!(svg, "<path d=\"{measured}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    for p in &series.points {
        let what = format!("{} at depth {}: {} tokens/s", series.name, p.depth, rate(p.tokens_per_s.best));
        let (x, y) = (scale.x(p.depth), scale.y(p.tokens_per_s.best));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{what}</title></circle>"
        );
    }
    let x = scale.x.1 + 14.0;
    let _ = writeln!(svg, "<path d=\"M{x} {at:.1}h18\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\">{}</text>", x + 24.0, at + 4.0, series.name);
}

/// A step of 1, 2 or 5 times a power of ten, of which at most six reach up to `most`.
fn round_step(most: f64) -> f64 {
    if !most.is_finite() || most <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf((most / 6.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| most / step <= 6.0).unwrap_or(10.0 * power)
}

/// Text between tags: file names and processors' names are anything.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (most, step) in [(15.1, 5.0), (6.0, 1.0), (6.1, 2.0), (980.0, 200.0), (0.7, 0.2), (0.0, 1.0)] {
            assert!((round_step(most) - step).abs() < 1e-9, "{most}: {}", round_step(most));
        }
    }

    #[test]
    fn names_cannot_become_tags() {
        assert_eq!(escaped("<a href=\"x\">&\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }
}
