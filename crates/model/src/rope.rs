//! Rotary frequencies of a [`RopeSpec`] and the angles of positions.

use crate::spec::{RopeScaling, RopeSpec};

impl RopeSpec {
    /// The angle that pair `i` turns by a position, for each of the `dim / 2` pairs.
    pub fn frequencies(&self) -> Vec<f32> {
        let pairs = self.dim / 2;
        let plain = (0..pairs).map(|i| 1.0 / self.base.powf(2.0 * i as f32 / self.dim as f32));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Divisors(divisors) => plain.zip(divisors).map(|(f, d)| f / d).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => {
                plain.map(|f| llama3(f, *factor, *low, *high, *original)).collect()
            }
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                let (low, high) = self.yarn_ramp(*original, *beta_fast, *beta_slow, *truncate);
                plain
                    .enumerate()
                    .map(|(i, f)| {
                        let divided = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                        f / factor * divided + f * (1.0 - divided)
                    })
                    .collect()
            }
        }
    }

    /// Factor of cosine and sine (YaRN's attention factor; 1 for the others).
    pub fn magnitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { magnitude, .. } => magnitude,
            _ => 1.0,
        }
    }

    /// The pairs between which YaRN goes from keeping to dividing (Peng et al. 2023, section 3.2).
    fn yarn_ramp(&self, original: f32, beta_fast: f32, beta_slow: f32, truncate: bool) -> (f32, f32) {
        let (dim, base, original) = (self.dim as f64, self.base as f64, original as f64);
        // The pair that makes `rotations` turns in the original context.
        let pair =
            |rotations: f32| dim * (original / (rotations as f64 * std::f64::consts::TAU)).ln() / (2.0 * base.ln());
        let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        (low as f32, high as f32)
    }
}

/// YaRN's magnitude correction, `0.1 m ln s + 1` (DeepSeek-V2 report, section 3.1.4).
pub fn yarn_magnitude(factor: f32, m: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
}

/// Cosine and sine of every pair for each position: `dim` numbers a position, (cos, sin) by pair.
pub fn angles(frequencies: &[f32], magnitude: f32, positions: impl Iterator<Item = usize>, out: &mut Vec<f32>) {
    out.clear();
    for position in positions {
        for &frequency in frequencies {
            // The product is rounded to f32, as the reference does; its cosine is exact.
            let angle = (position as f32 * frequency) as f64;
            out.push(angle.cos() as f32 * magnitude);
            out.push(angle.sin() as f32 * magnitude);
        }
    }
}

fn llama3(frequency: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let wavelength = std::f32::consts::TAU / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let kept = (original / wavelength - low) / (high - low);
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}
