//! Round numbers along an axis.

/// The smallest and largest of the finite values.
pub(crate) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |extent, v| match extent {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}

/// Some `wanted` multiples of 1, 2 or 5 times a power of ten that lie in `low ..= high`.
pub(crate) fn linear(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last.min(first + 100)).map(|i| i as f64 * step).collect()
}

/// Powers of ten in `low ..= high` (both positive); where there are few, twice and five times them as well.
pub(crate) fn logarithmic(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let inside = |v: &f64| *v >= low * 0.999 && *v <= high * 1.001;
    let powers: Vec<f64> = (first..=last).map(|p| 10f64.powi(p)).filter(inside).collect();
    match powers.len() {
        0..=2 => (first..=last).flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(p))).filter(inside).collect(),
        3..=8 => powers,
        many => powers.into_iter().step_by(many.div_ceil(8)).collect(),
    }
}

/// A number in few characters: `0`, `0.25`, `12`, `3.5k`, `20M`, `1.2e-5`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let trimmed = |v: f64, suffix: &str| {
        let text = format!("{v:.2}");
        format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match size {
        0.0 => "0".to_string(),
        s if !s.is_finite() => value.to_string(),
        s if !(1e-3..1e15).contains(&s) => format!("{value:.1e}"),
        s if s < 0.1 => format!("{value:.4}").trim_end_matches('0').to_string(),
        s if s < 1e4 => trimmed(value, ""),
        s if s < 1e6 => trimmed(value / 1e3, "k"),
        s if s < 1e9 => trimmed(value / 1e6, "M"),
        s if s < 1e12 => trimmed(value / 1e9, "G"),
        _ => trimmed(value / 1e12, "T"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(linear(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(linear(-0.3, 0.3, 3).len(), 3);
        assert_eq!(linear(5.0, 5.0, 5), [5.0]);
        assert_eq!(logarithmic(1.0, 1000.0), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(logarithmic(15.0, 90.0), [20.0, 50.0]);
        assert!(logarithmic(1e-12, 1e12).len() <= 9);
    }

    #[test]
    fn numbers_are_short() {
        let texts: Vec<String> = [0.0, 0.25, 12.0, 3500.0, 35_000.0, 2e7, 1.2e-5, -0.05, 1e13].map(short).to_vec();
        assert_eq!(texts, ["0", "0.25", "12", "3500", "35k", "20M", "1.2e-5", "-0.05", "10T"]);
    }
}
