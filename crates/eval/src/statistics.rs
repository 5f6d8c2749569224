//! From graded samples to figures with their uncertainty.

/// The probability that one of `k` samples drawn from `samples`, of which `right` are right, is right: the unbiased
/// estimator of Chen et al. 2021, equation 1. 1 if fewer than `k` are wrong.
pub fn pass_at_k(samples: usize, right: usize, k: usize) -> f64 {
    let wrong = samples.saturating_sub(right);
    if wrong < k {
        return 1.0;
    }
    let none_right: f64 = ((wrong + 1)..=samples).map(|i| 1.0 - k as f64 / i as f64).product();
    1.0 - none_right
}

/// Wilson's interval of a share, 95 %: `share` of `trials`, as (low, high). (0, 1) without trials.
pub fn wilson(share: f64, trials: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (trials as f64, Z * Z);
    let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The most frequent of the items, the earliest of those that are equally frequent; `None` of none.
pub fn majority<'a>(items: &[&'a str]) -> Option<&'a str> {
    let count = |item: &str| items.iter().filter(|other| **other == item).count();
    let most = items.iter().map(|item| count(item)).max()?;
    items.iter().find(|item| count(item) == most).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_subsets() {
        // Of the 10 pairs of 5 samples with 2 right, 3 have none right.
        assert!((pass_at_k(5, 2, 2) - 0.7).abs() < 1e-12);
        assert!((pass_at_k(4, 1, 1) - 0.25).abs() < 1e-12);
        assert_eq!((pass_at_k(4, 0, 4), pass_at_k(4, 4, 1), pass_at_k(4, 1, 4)), (0.0, 1.0, 1.0));
        for right in 0..=6 {
            let hits = (0u32..64).filter(|set| set.count_ones() == 3);
            let (all, some) =
                hits.fold((0, 0), |(all, some), set| (all + 1, some + i32::from(set % (1 << right) != 0)));
            assert!((pass_at_k(6, right, 3) - f64::from(some) / f64::from(all)).abs() < 1e-12, "{right}");
        }
    }

    #[test]
    fn wilson_s_interval() {
        // Agresti and Coull 1998: 0 of 10 gives (0, 0.278); 5 of 10 gives (0.237, 0.763).
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-3 && (b - d).abs() < 1e-3;
        assert!(near(wilson(0.0, 10), (0.0, 0.2775)));
        assert!(near(wilson(0.5, 10), (0.2366, 0.7634)));
        assert_eq!(wilson(0.5, 0), (0.0, 1.0));
    }

    #[test]
    fn majorities() {
        assert_eq!(majority(&["7", "8", "8", "7", "8"]), Some("8"));
        assert_eq!(majority(&["7", "8"]), Some("7"));
        assert_eq!(majority(&[]), None);
    }
}
