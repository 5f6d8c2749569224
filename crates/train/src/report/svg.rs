//! Plots as SVG: curves with axes, and heat maps. No script, no font, no colour from elsewhere.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
/// Points of a curve at most; more are averaged, since nobody could tell them apart.
const POINTS_MAX: usize = 500;

/// A curve.
pub(super) struct Curve {
    /// The class that gives its colour: `a` and `b` for the runs, with `2` behind for a second curve of a run.
    pub(super) class: &'static str,
    /// Whether its points are marked (few, measured now and then).
    pub(super) dots: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves over a common axis; none if there is nothing to show.
pub(super) fn plot(x_label: &str, curves: &[Curve], logarithmic: bool) -> Option<String> {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite() && (!logarithmic || p.1 > 0.0);
    let value = |y: f64| if logarithmic { y.log10() } else { y };
    let points = || curves.iter().flat_map(|curve| curve.points.iter().filter(finite));
    let x = Axis::over(points().map(|p| p.0), LEFT, WIDTH - RIGHT)?;
    let y = Axis::over(points().map(|p| value(p.1)), HEIGHT - BOTTOM, TOP)?;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for (at, text) in y.ticks(logarithmic) {
        let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT);
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0);
    }
    for (at, text) in x.ticks(false) {
        let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{}\"/>", HEIGHT - BOTTOM);
        let _ =
            write!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", HEIGHT - BOTTOM + 15.0);
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let _ = write!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x_label}</text>", HEIGHT - 4.0);
    for curve in curves {
        let shown: Vec<(f64, f64)> = curve.points.iter().filter(finite).map(|p| (p.0, value(p.1))).collect();
        let placed: Vec<(f64, f64)> = thinned(&shown).into_iter().map(|p| (x.place(p.0), y.place(p.1))).collect();
        let line: Vec<String> = placed.iter().map(|p| format!("{:.1} {:.1}", p.0, p.1)).collect();
        let _ = write!(svg, "<path class=\"curve {}\" d=\"M{}\"/>", curve.class, line.join("L"));
        if curve.dots {
            let dot = |p: &(f64, f64)| {
                format!("<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>", curve.class, p.0, p.1)
            };
            svg.extend(placed.iter().map(dot));
        }
    }
    Some(svg + "</svg>")
}

/// A heat map: a row for each list, a column for each time; 1 is white, less blue, more red.
pub(super) fn heat_map(rows: &[Vec<f32>], labels: &[String], x_label: &str) -> Option<String> {
    let columns = rows.iter().map(Vec::len).max().filter(|&n| n > 0)?;
    let row_height = (420.0 / rows.len() as f64).clamp(2.0, 14.0);
    let height = TOP + row_height * rows.len() as f64 + BOTTOM;
    let column_width = (WIDTH - LEFT - RIGHT) / columns as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">");
    for (r, row) in rows.iter().enumerate() {
        let y = TOP + r as f64 * row_height;
        for (c, &load) in row.iter().enumerate() {
            let x = LEFT + c as f64 * column_width;
            let _ = write!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{}\"/>",
                column_width + 0.1,
                row_height + 0.1,
                colour(load)
            );
        }
        if let Some(label) = labels.get(r).filter(|label| !label.is_empty()) {
            let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, y + 9.0);
        }
    }
    let (middle, y) = ((LEFT + WIDTH - RIGHT) / 2.0, height - 12.0);
    let _ = write!(svg, "<text x=\"{middle}\" y=\"{y:.0}\" text-anchor=\"middle\">{x_label}</text>");
    Some(svg + "</svg>")
}

/// White at the mean; full blue at a quarter of it or less, full red at four times.
fn colour(load: f32) -> String {
    let share = if load > 0.0 { (load.log2() / 2.0).clamp(-1.0, 1.0) } else { -1.0 };
    let fade = (255.0 * (1.0 - share.abs())) as u8;
    if share < 0.0 { format!("rgb({fade},{fade},255)") } else { format!("rgb(255,{fade},{fade})") }
}

/// At most [`POINTS_MAX`] points, each the mean of its neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(group).map(mean).collect()
}

/// From values to places.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Axis> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        // A constant needs room around it.
        let room = if high > low { (high - low) * 0.03 } else { high.abs().max(1.0) * 0.1 };
        let low = if low >= 0.0 && low - room < 0.0 { 0.0 } else { low - room };
        Some(Axis { low, high: high + room, from, to })
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round values inside, with their text.
    fn ticks(&self, logarithmic: bool) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        let tick = |i: i64| {
            let value = i as f64 * step;
            (self.place(value), number(if logarithmic { 10f64.powf(value) } else { value }))
        };
        (first..=last).take(20).map(tick).collect()
    }
}

/// A number in few characters.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.1}");
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match size {
        _ if size == 0.0 => "0".to_string(),
        s if s >= 1e9 => short(value / 1e9, " G"),
        s if s >= 1e6 => short(value / 1e6, " M"),
        s if s >= 1e4 => short(value / 1e3, " k"),
        s if s >= 100.0 => format!("{value:.0}"),
        s if s >= 1e-2 => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_stay_inside_and_long_ones_are_thinned() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), f64::from(i).sin())).collect();
        let svg = plot("tokens", &[Curve { class: "a", dots: false, points }], false).unwrap();
        assert!(svg.len() < 20_000, "{}", svg.len());
        let path = svg.split("<path class=\"curve a\" d=\"M").nth(1).unwrap().split('"').next().unwrap();
        for place in path.split('L') {
            let (x, y) = place.split_once(' ').unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()), "{place}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()), "{place}");
        }
    }

    #[test]
    fn nothing_and_infinity_are_not_drawn() {
        let curve = |points| [Curve { class: "a", dots: true, points }];
        assert!(plot("x", &curve(vec![]), false).is_none());
        assert!(plot("x", &curve(vec![(1.0, f64::NAN)]), false).is_none());
        assert!(plot("x", &curve(vec![(1.0, 0.0)]), true).is_none());
        let svg = plot("x", &curve(vec![(1.0, 2.0), (2.0, f64::INFINITY)]), true).unwrap();
        assert!(!svg.contains("inf") && !svg.contains("NaN"), "{svg}");
        assert!(heat_map(&[], &[], "x").is_none());
    }

    #[test]
    fn loads_have_colours_and_numbers_are_short() {
        assert_eq!(
            [colour(1.0), colour(0.25), colour(0.0), colour(4.0)],
            ["rgb(255,255,255)", "rgb(0,0,255)", "rgb(0,0,255)", "rgb(255,0,0)"]
        );
        let texts: Vec<String> = [0.0, 0.001, 0.25, 12.5, 150.0, 20_000.0, 2.5e7].map(number).to_vec();
        assert_eq!(texts, ["0", "1.0e-3", "0.25", "12.5", "150", "20 k", "25 M"]);
    }
}
