//! Numbers as colours: rows over columns.

use std::fmt::Write;

use crate::chart::style;
use crate::page::escape;
use crate::ticks::{extent, short};

/// A grid of numbers.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// Above it.
    pub title: String,
    /// What the columns are.
    pub x_label: String,
    /// What the rows are.
    pub y_label: String,
    /// The first and the last column's name.
    pub x_ends: (String, String),
    /// One name a row.
    pub row_names: Vec<String>,
    /// Rows of numbers; those that are not finite are left blank.
    pub values: Vec<Vec<f64>>,
    /// The values of the two ends of the colours; none: the smallest and the largest.
    pub range: Option<(f64, f64)>,
}

/// Columns that are drawn; of more, the mean of each share.
const COLUMNS_MAX: usize = 160;
const LEFT: f64 = 96.0;
const WIDTH: f64 = 720.0;
const TOP: f64 = 34.0;

impl HeatMap {
    /// The map as one self-contained SVG element.
    pub fn svg(&self) -> String {
        let rows: Vec<Vec<f64>> = self.values.iter().map(|row| shares(row)).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let row_height = (240.0 / rows.len().max(1) as f64).clamp(3.0, 18.0);
        let bottom = TOP + row_height * rows.len() as f64;
        let (low, high) = self.range.or_else(|| extent(rows.iter().flatten().copied())).unwrap_or((0.0, 1.0));
        let cell = (WIDTH - LEFT - 18.0) / columns as f64;
        let mut svg = String::new();
        let _ = write!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {:.0}" role="img" class="plot" aria-label="{1}" font-family="system-ui, sans-serif" font-size="12"><title>{1}</title>{2}<text class="pl-title" x="{LEFT}" y="20">{1}</text>"#,
            bottom + 62.0,
            escape(&self.title),
            style(),
        );
        for (r, row) in rows.iter().enumerate() {
            let y = TOP + r as f64 * row_height;
            for (c, value) in row.iter().enumerate().filter(|(_, v)| v.is_finite()) {
                let part = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
                let x = LEFT + c as f64 * cell;
                let _ = write!(
                    svg,
                    r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{row_height:.1}" fill="{}"/>"#,
                    cell + 0.3,
                    colour(part)
                );
            }
            if let Some(name) = self.row_names.get(r).filter(|_| row_height >= 10.0 || r.is_multiple_of(4)) {
                let y = y + row_height / 2.0 + 4.0;
                let _ = write!(svg, r#"<text x="{}" y="{y:.1}" text-anchor="end">{}</text>"#, LEFT - 7.0, escape(name));
            }
        }
        self.frame(&mut svg, bottom, low, high);
        svg.push_str("</svg>");
        svg
    }

    fn frame(&self, svg: &mut String, bottom: f64, low: f64, high: f64) {
        let right = WIDTH - 18.0;
        let middle = (TOP + bottom) / 2.0;
        let _ = write!(
            svg,
            r#"<text x="{LEFT}" y="{0:.0}">{1}</text><text x="{right}" y="{0:.0}" text-anchor="end">{2}</text><text x="{3:.0}" y="{0:.0}" text-anchor="middle">{4}</text><text x="14" y="{middle:.0}" text-anchor="middle" transform="rotate(-90 14 {middle:.0})">{5}</text>"#,
            bottom + 16.0,
            escape(&self.x_ends.0),
            escape(&self.x_ends.1),
            (LEFT + right) / 2.0,
            escape(&self.x_label),
            escape(&self.y_label),
        );
        let _ = write!(
            svg,
            r#"<text x="{}" y="{:.0}" text-anchor="end">{}</text>"#,
            LEFT + 40.0,
            bottom + 46.0,
            short(low)
        );
        for i in 0..40 {
            let x = LEFT + 48.0 + f64::from(i) * 4.0;
            let fill = colour(f64::from(i) / 39.0);
            let _ = write!(svg, r#"<rect x="{x:.0}" y="{:.0}" width="4.3" height="10" fill="{fill}"/>"#, bottom + 37.0);
        }
        let _ = write!(svg, r#"<text x="{}" y="{:.0}">{}</text>"#, LEFT + 48.0 + 168.0, bottom + 46.0, short(high));
    }
}

/// Means of at most [`COLUMNS_MAX`] equal shares of a row.
fn shares(row: &[f64]) -> Vec<f64> {
    let columns = row.len().min(COLUMNS_MAX);
    let share = |i: usize| {
        let part = &row[i * row.len() / columns..(i + 1) * row.len() / columns];
        part.iter().sum::<f64>() / part.len() as f64
    };
    (0..columns).map(share).collect()
}

/// Dark blue over green to yellow: rises in lightness, so it reads in grey as well.
fn colour(part: f64) -> String {
    const STOPS: [(f64, f64, f64); 5] =
        [(48.0, 18.0, 89.0), (49.0, 84.0, 140.0), (38.0, 146.0, 135.0), (116.0, 196.0, 90.0), (247.0, 226.0, 56.0)];
    let at = part * 4.0;
    let i = (at as usize).min(3);
    let mix = |a: f64, b: f64| (a + (b - a) * (at - i as f64)).round();
    let (from, to) = (STOPS[i], STOPS[i + 1]);
    format!("rgb({},{},{})", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}
