//! Charts and pages that need nothing but themselves: SVG, HTML, and lines for a terminal.
//!
//! What comes out loads nothing from elsewhere, holds no script, follows the reader's light or dark setting, and is
//! the same text for the same numbers. Labels are text, never markup. Numbers that are not finite leave a gap.

mod chart;
mod heat_map;
mod page;
mod ticks;

pub use chart::{Axis, Chart, Scale, Series, Style};
pub use heat_map::HeatMap;
pub use page::{Page, escape};
pub use ticks::short;

/// Values as one line of eight heights, `width` characters: each stands for the mean of its share. Values that are not
/// finite are left out; a share without any is a space.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = width.min(values.len());
    let shares = (0..width).map(|i| {
        let share = &values[i * values.len() / width..(i + 1) * values.len() / width];
        let finite: Vec<f64> = share.iter().copied().filter(|v| v.is_finite()).collect();
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    });
    let shares: Vec<Option<f64>> = shares.collect();
    let (low, high) = ticks::extent(shares.iter().flatten().copied()).unwrap_or((0.0, 1.0));
    let height = |v: f64| {
        let part = if high > low { (v - low) / (high - low) } else { 0.0 };
        HEIGHTS[((part * 7.0).round() as usize).min(7)]
    };
    shares.into_iter().map(|share| share.map_or(' ', height)).collect()
}
