//! The bill of a run: tokens, operations, seconds, share of the machine's peak, energy, money.

use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;
use crate::run::checkpoint::State;
use crate::run::log::Line;

/// What a run cost so far.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Bill {
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Useful operations: 6 for each active parameter and token.
    pub operations: f64,
    /// Seconds of training, over all starts.
    pub seconds: f64,
    /// Useful operations a second as a share of the machine's f32 peak: median of all steps.
    pub peak_share: Option<f64>,
    /// Energy.
    pub joules: Option<Energy>,
    /// Money, where the recipe states a price.
    pub money: Option<Money>,
}

/// Joules, and how they are known.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Energy {
    /// Joules.
    pub joules: f64,
    /// Whether the processor's counters said it; otherwise it is the recipe's power times the time.
    pub measured: bool,
}

/// Money at a stated price.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Money {
    /// The sum.
    pub amount: f64,
    /// The price of an hour.
    pub per_hour: f64,
    /// Its currency.
    pub currency: String,
}

impl Bill {
    /// The bill of a run that has come so far.
    pub fn of(recipe: &Recipe, active: u64, state: &State, log: &[Line]) -> Bill {
        let tokens = state.step * recipe.train.batch_tokens as u64;
        let mut shares: Vec<f64> = log.iter().filter_map(|line| line.peak_share).collect();
        shares.sort_by(f64::total_cmp);
        let watts = recipe.run.watts_estimated;
        let joules = match (state.joules > 0.0, watts > 0.0) {
            (true, _) => Some(Energy { joules: state.joules, measured: true }),
            (false, true) => Some(Energy { joules: watts * state.seconds, measured: false }),
            (false, false) => None,
        };
        let per_hour = recipe.run.price_per_hour;
        let money =
            || Money { amount: per_hour * state.seconds / 3600.0, per_hour, currency: recipe.run.currency.clone() };
        Bill {
            tokens,
            operations: 6.0 * active as f64 * tokens as f64,
            seconds: state.seconds,
            peak_share: shares.get(shares.len() / 2).copied(),
            joules,
            money: (per_hour > 0.0).then(money),
        }
    }

    /// Rows of a table: what, and how much.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("tokens", grouped(self.tokens)),
            ("useful operations (6 N D)", format!("{:.3e}", self.operations)),
            ("time", format!("{:.2} h", self.seconds / 3600.0)),
        ];
        let not = || "not known: this machine has no counter and the recipe states no power".to_string();
        let share = |share: f64| format!("{:.1} % of the f32 peak (median step)", share * 100.0);
        rows.push(("use of the machine", self.peak_share.map_or("not measured".to_string(), share)));
        rows.push((
            "energy",
            self.joules.as_ref().map_or_else(not, |energy| {
                let how = if energy.measured { "measured" } else { "estimated from the recipe's watts_estimated" };
                format!("{:.3} kWh ({how})", energy.joules / 3.6e6)
            }),
        ));
        rows.push((
            "money",
            self.money.as_ref().map_or("no price stated".to_string(), |money| {
                format!("{:.2} {} at {} an hour", money.amount, money.currency, money.per_hour)
            }),
        ));
        rows
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::tests::recipe;

    #[test]
    fn what_is_not_measured_is_said_to_be_estimated() {
        let state = State { step: 10, seconds: 7200.0, ..State::default() };
        let line = |share| Line { peak_share: Some(share), ..Line::default() };
        let log = [line(0.1), line(0.3), line(0.2)];
        let bill = Bill::of(&recipe(""), 1000, &state, &log);
        assert_eq!((bill.tokens, bill.operations, bill.peak_share), (640, 3_840_000.0, Some(0.2)));
        assert!(bill.joules.is_none() && bill.money.is_none());
        let priced = recipe("[run]\nprice_per_hour = 0.5\nwatts_estimated = 100");
        let bill = Bill::of(&priced, 1000, &state, &log);
        assert_eq!(bill.money.as_ref().map(|money| money.amount), Some(1.0));
        assert_eq!(bill.joules, Some(Energy { joules: 720_000.0, measured: false }));
        assert!(bill.rows().iter().any(|(_, text)| text.contains("0.200 kWh (estimated")));
        let measured = State { joules: 3.6e6, ..state };
        assert_eq!(Bill::of(&priced, 1, &measured, &[]).joules, Some(Energy { joules: 3.6e6, measured: true }));
        assert_eq!(
            (grouped(1), grouped(123_456), grouped(1_234_567)),
            ("1".into(), "123,456".into(), "1,234,567".into())
        );
    }
}
