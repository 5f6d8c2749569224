//! Lines and points over two axes.

use std::fmt::Write;

use crate::page::escape;
use crate::ticks::{extent, linear, logarithmic, short};

/// A chart.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, in this order; more than eight begin with the first colour again.
    pub series: Vec<Series>,
}

/// One axis.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How values are spread.
    pub scale: Scale,
    /// Values that must be inside, besides those of the series.
    pub include: Vec<f64>,
}

impl Axis {
    /// A linear axis.
    pub fn new(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), ..Axis::default() }
    }

    /// A logarithmic one.
    pub fn log(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), scale: Scale::Log, ..Axis::default() }
    }

    /// With `value` inside.
    pub fn including(mut self, value: f64) -> Axis {
        self.include.push(value);
        self
    }
}

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By their logarithm; values that are not positive are left out.
    Log,
}

/// Some points with a name.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// (x, y).
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub style: Style,
    /// A text beside each point, where given.
    pub labels: Vec<String>,
    /// The lower and upper end of a bar through each point, where given.
    pub bars: Vec<(f64, f64)>,
    /// The number of its colour, for series that belong together; none: its place among the series.
    pub colour: Option<usize>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// A line.
    #[default]
    Line,
    /// A broken line, for what is expected and not measured.
    Dashed,
    /// Points alone.
    Points,
    /// Points with a line through them.
    Both,
}

impl Series {
    /// A line through `points`.
    pub fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.into(), points, ..Series::default() }
    }

    /// The same in another style.
    pub fn styled(mut self, style: Style) -> Series {
        self.style = style;
        self
    }

    /// The same in the colour of the series at a place.
    pub fn coloured(mut self, place: usize) -> Series {
        self.colour = Some(place);
        self
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 52.0;
/// Points of a series that are drawn; of more, the lowest and highest of each share.
const POINTS_MAX: usize = 2000;
/// Wong 2011: eight colours that the colour-blind can tell apart; on light and on dark ground.
pub(crate) const COLOURS: [(&str, &str); 8] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8f4a"),
    ("#009e73", "#2fd3a5"),
    ("#cc79a7", "#e79ac5"),
    ("#8a6d00", "#e6c229"),
    ("#3b8fb8", "#9ad0f5"),
    ("#7a5195", "#b58fd6"),
    ("#555555", "#bbbbbb"),
];

impl Chart {
    /// The chart as one self-contained SVG element.
    pub fn svg(&self) -> String {
        let x = Mapped::of(&self.x, self.finite().map(|(x, _)| x), LEFT, WIDTH - RIGHT);
        let bars = self.series.iter().flat_map(|s| s.bars.iter().flat_map(|b| [b.0, b.1]));
        let y = Mapped::of(&self.y, self.finite().map(|(_, y)| y).chain(bars), HEIGHT - BOTTOM, TOP);
        let mut svg = String::new();
        let legend_rows = self.legend_rows();
        let height = HEIGHT + 20.0 * legend_rows.len() as f64;
        let _ = write!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" class="plot" aria-label="{0}" font-family="system-ui, sans-serif" font-size="12"><title>{0}</title>{1}"#,
            escape(&self.title),
            style(),
        );
        let _ = write!(svg, r#"<text class="pl-title" x="{LEFT}" y="20">{}</text>"#, escape(&self.title));
        self.grid(&mut svg, &x, &y);
        for (i, series) in self.series.iter().enumerate() {
            draw(&mut svg, series, series.colour.unwrap_or(i) % COLOURS.len(), &x, &y);
        }
        for (row, names) in legend_rows.iter().enumerate() {
            for (at, i, name) in names {
                let (top, colour) = (HEIGHT + 20.0 * row as f64, i % COLOURS.len());
                let _ = write!(
                    svg,
                    r#"<rect class="pl-f{colour}" x="{at}" y="{:.0}" width="14" height="4" rx="2"/><text x="{:.0}" y="{:.0}">{}</text>"#,
                    top + 3.0,
                    at + 20.0,
                    top + 9.0,
                    escape(name),
                );
            }
        }
        svg.push_str("</svg>");
        svg
    }

    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.series.iter().flat_map(|s| s.points.iter().copied()).filter(|(x, y)| x.is_finite() && y.is_finite())
    }

    /// Names with their places, as many in a row as fit; none for a single series without a name.
    fn legend_rows(&self) -> Vec<Vec<(f64, usize, &str)>> {
        let mut rows: Vec<Vec<(f64, usize, &str)>> = Vec::new();
        let mut at = WIDTH;
        for (i, series) in self.series.iter().enumerate().filter(|(_, s)| !s.name.is_empty()) {
            let width = 44.0 + 6.8 * series.name.chars().count() as f64;
            if at + width > WIDTH - RIGHT {
                rows.push(Vec::new());
                at = LEFT;
            }
            if let Some(row) = rows.last_mut() {
                row.push((at, series.colour.unwrap_or(i), &series.name));
            }
            at += width;
        }
        rows
    }

    fn grid(&self, svg: &mut String, x: &Mapped, y: &Mapped) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &x.ticks {
            let at = x.place(*tick);
            let _ = write!(
                svg,
                r#"<line class="pl-grid" x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom}"/><text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                short(*tick)
            );
        }
        for tick in &y.ticks {
            let at = y.place(*tick);
            let _ = write!(
                svg,
                r#"<line class="pl-grid" x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 7.0,
                at + 4.0,
                short(*tick)
            );
        }
        let middle = (TOP + bottom) / 2.0;
        let _ = write!(
            svg,
            r#"<line class="pl-axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/><text x="{:.0}" y="{:.0}" text-anchor="middle">{}</text><text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{}</text>"#,
            (LEFT + right) / 2.0,
            bottom + 36.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }
}

/// Colours and lines for both grounds, as rules of classes: nothing is set by the reader's page.
pub(crate) fn style() -> String {
    let mut css = String::from(
        ".plot text{fill:#3a3f45}.plot .pl-title{font-size:14px;font-weight:600;fill:#16191d}.plot .pl-grid{stroke:#8884;stroke-width:.6}.plot .pl-axis{stroke:#777;stroke-width:1}",
    );
    let rules = |css: &mut String, dark: bool| {
        for (i, (light_colour, dark_colour)) in COLOURS.iter().enumerate() {
            let colour = if dark { dark_colour } else { light_colour };
            let _ = write!(css, ".pl-s{i}{{stroke:{colour};fill:none;stroke-width:1.8}}.pl-f{i}{{fill:{colour}}}");
        }
    };
    rules(&mut css, false);
    css.push_str("@media(prefers-color-scheme:dark){.plot text{fill:#c3c9d1}.plot .pl-title{fill:#eceff3}");
    rules(&mut css, true);
    css.push('}');
    format!("<style>{css}</style>")
}

/// An axis with its range and where it lies on the page.
struct Mapped {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Mapped {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Mapped {
        let usable = |v: &f64| axis.scale == Scale::Linear || *v > 0.0;
        let (low, high) = extent(values.chain(axis.include.iter().copied()).filter(usable)).unwrap_or((1.0, 10.0));
        let (low, high) = match axis.scale {
            Scale::Log if low == high => (low / 2.0, high * 2.0),
            Scale::Log => (low, high),
            Scale::Linear if low == high => (low - 0.5 * low.abs().max(1e-9), high + 0.5 * high.abs().max(1e-9)),
            Scale::Linear => (low, high),
        };
        let ticks = match axis.scale {
            Scale::Linear => linear(low, high, 6),
            Scale::Log => logarithmic(low, high),
        };
        Mapped { scale: axis.scale, low, high, from, to, ticks }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln()),
        };
        self.from + part * (self.to - self.from)
    }

    fn has_place(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }
}

fn draw(svg: &mut String, series: &Series, colour: usize, x: &Mapped, y: &Mapped) {
    let points = thinned(&series.points);
    if series.style != Style::Points {
        let dash = if series.style == Style::Dashed { r#" stroke-dasharray="6 4""# } else { "" };
        let mut path = String::new();
        let mut pen_down = false;
        for &(px, py) in points.iter() {
            let visible = x.has_place(px) && y.has_place(py);
            if visible {
                let _ = write!(path, "{}{:.1} {:.1}", if pen_down { 'L' } else { 'M' }, x.place(px), y.place(py));
            }
            pen_down = visible;
        }
        let _ = write!(svg, r#"<path class="pl-s{colour}"{dash} d="{path}"/>"#);
    }
    for (i, &(px, py)) in series.points.iter().enumerate() {
        if !(x.has_place(px) && y.has_place(py)) {
            continue;
        }
        let (cx, cy) = (x.place(px), y.place(py));
        if let Some(&(low, high)) = series.bars.get(i).filter(|(low, high)| y.has_place(*low) && y.has_place(*high)) {
            let (top, bottom) = (y.place(high), y.place(low));
            let _ = write!(svg, r#"<path class="pl-s{colour}" d="M{cx:.1} {bottom:.1}V{top:.1}"/>"#);
        }
        if matches!(series.style, Style::Points | Style::Both) && series.points.len() <= POINTS_MAX {
            let _ = write!(svg, r#"<circle class="pl-f{colour}" cx="{cx:.1}" cy="{cy:.1}" r="3.2"/>"#);
        }
        if let Some(label) = series.labels.get(i).filter(|label| !label.is_empty()) {
            // To the left of points near the right edge.
            let (dx, anchor) = if cx > WIDTH * 0.8 { (-7.0, "end") } else { (7.0, "start") };
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
                cx + dx,
                cy - 5.0,
                escape(label)
            );
        }
    }
}

/// All points, or of very many the lowest and the highest of each share in their order.
fn thinned(points: &[(f64, f64)]) -> std::borrow::Cow<'_, [(f64, f64)]> {
    if points.len() <= POINTS_MAX {
        return points.into();
    }
    let share = points.len().div_ceil(POINTS_MAX / 2);
    let extremes = |points: &[(f64, f64)]| {
        let by = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        let finite = || (0..points.len()).filter(|&i| points[i].1.is_finite());
        let (low, high) = (finite().min_by(by), finite().max_by(by));
        let mut both: Vec<usize> = low.into_iter().chain(high).collect();
        both.sort_unstable();
        both.dedup();
        both.into_iter().map(|i| points[i]).collect::<Vec<_>>()
    };
    points.chunks(share).flat_map(extremes).collect()
}
