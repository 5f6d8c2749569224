//! The learning rate over a run.

use std::f64::consts::PI;

use crate::recipe::{Recipe, Schedule, ScheduleKind};

/// The learning rate of step `0 ..`.
pub fn learning_rate(recipe: &Recipe, step: u64) -> f64 {
    rate(&recipe.schedule, recipe.optimizer.lr, recipe.steps(), step)
}

/// The learning rate of step `step` of `steps`, where `peak` is the highest.
pub fn rate(schedule: &Schedule, peak: f64, steps: u64, step: u64) -> f64 {
    if step < schedule.warmup_steps {
        return peak * (step + 1) as f64 / schedule.warmup_steps as f64;
    }
    // Shares of the whole run; the last step is at the very end of the fall.
    let share = (step + 1) as f64 / steps as f64;
    let warm = schedule.warmup_steps as f64 / steps as f64;
    let low = schedule.final_share;
    let factor = match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Wsd => {
            let begun = (share - (1.0 - schedule.decay_share)) / schedule.decay_share;
            if begun > 0.0 { 1.0 - (1.0 - low) * begun.min(1.0) } else { 1.0 }
        }
        ScheduleKind::Cosine => {
            let begun = ((share - warm) / (1.0 - warm).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
            low + (1.0 - low) * 0.5 * (1.0 + (PI * begun).cos())
        }
        ScheduleKind::V3 => v3(share),
    };
    peak * factor
}

/// DeepSeek-V3 (report, section 4.2): 2.2e-4 to 10 T of 14.8 T tokens, half a cosine to 2.2e-5 over 4.3 T, 2.2e-5 for
/// 333 B, 7.3e-6 for 167 B.
fn v3(share: f64) -> f64 {
    let tokens = share * 14.8;
    match tokens {
        t if t <= 10.0 => 1.0,
        t if t <= 14.3 => 0.1 + 0.9 * 0.5 * (1.0 + (PI * (t - 10.0) / 4.3).cos()),
        t if t <= 14.633 => 0.1,
        _ => 7.3 / 220.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::tests::recipe;

    fn rates(kind: &str) -> Vec<f64> {
        let schedule =
            format!("[schedule]\nkind = \"{kind}\"\nwarmup_steps = 10\ndecay_share = 0.25\nfinal_share = 0.1");
        let recipe = recipe(&schedule);
        assert_eq!(recipe.steps(), 100);
        (0..100).map(|step| learning_rate(&recipe, step) / recipe.optimizer.lr).collect()
    }

    #[track_caller]
    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found} for {wanted}");
    }

    #[test]
    fn every_schedule_rises_and_ends_where_it_should() {
        for kind in ["constant", "wsd", "cosine", "v3"] {
            let rates = rates(kind);
            near(rates[0], 0.1);
            near(rates[9], 1.0);
        }
        near(rates("constant")[99], 1.0);
        let wsd = rates("wsd");
        near(wsd[74], 1.0);
        near(wsd[87], 1.0 - 0.9 * 13.0 / 25.0);
        near(wsd[99], 0.1);
        let cosine = rates("cosine");
        near(cosine[54], 0.1 + 0.9 * 0.5);
        near(cosine[99], 0.1);
        let v3 = rates("v3");
        near(v3[66], 1.0);
        near(v3[97], 0.1);
        near(v3[99], 7.3 / 220.0);
        assert!(v3[80] < 1.0 && v3[80] > 0.1);
    }
}
