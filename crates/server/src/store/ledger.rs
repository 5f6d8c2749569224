//! What requests have cost, by key, day and model.
//!
//! Prices are integers, millionths of the currency for a million tokens; so the cost of a token is a whole number of
//! millionths of a millionth ("pico"), and sums are exact. A request's cost is taken from the balance in the same
//! transaction that writes it down.

use rusqlite::params;

use super::{Store, StoreError, now_ms};
use crate::state::Caller;
use crate::wire::chats::{UsageRow, UsageSum};
use crate::wire::usage::Usage;
use crate::work::Summary;

/// What a million tokens cost, in millionths of the currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Such as `USD`.
    pub currency: String,
    /// Tokens of prompts that were in the cache.
    pub hit_micro: i64,
    /// Those that were not.
    pub miss_micro: i64,
    /// Tokens of answers.
    pub output_micro: i64,
}

/// The largest price: a million of the currency for a million tokens.
const PRICE_MAX_MICRO: i64 = 1_000_000_000_000;

impl Default for Prices {
    fn default() -> Prices {
        Prices { currency: "USD".into(), hit_micro: 0, miss_micro: 0, output_micro: 0 }
    }
}

impl Prices {
    /// The cost of a request.
    pub fn cost_pico(&self, usage: &Usage) -> i64 {
        let parts = [
            (usage.prompt_cache_hit_tokens, self.hit_micro),
            (usage.prompt_cache_miss_tokens, self.miss_micro),
            (usage.completion_tokens, self.output_micro),
        ];
        let sum: i128 = parts.iter().map(|&(tokens, price)| i128::from(tokens) * i128::from(price)).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    }

    /// In words why the prices cannot be used.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.currency.len() != 3 || !self.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("the currency is {:?}; it must be three capital letters, such as USD", self.currency));
        }
        let prices = [self.hit_micro, self.miss_micro, self.output_micro];
        if prices.iter().any(|price| !(0..=PRICE_MAX_MICRO).contains(price)) {
            return Err("a price must be between 0 and 1,000,000 for a million tokens".into());
        }
        Ok(())
    }
}

/// A request for the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    key: i64,
    model: String,
    usage: Usage,
    cost_pico: i64,
    seconds: f64,
    joules: Option<f64>,
    joules_label: Option<String>,
}

impl Entry {
    pub(crate) fn new(caller: &Caller, model: &str, summary: &Summary) -> Entry {
        Entry {
            key: caller.key,
            model: model.to_string(),
            usage: summary.usage.clone(),
            cost_pico: caller.prices.cost_pico(&summary.usage),
            seconds: summary.extension.compute_seconds,
            joules: summary.extension.joules,
            joules_label: summary.extension.joules_label.clone(),
        }
    }
}

impl Store {
    /// Writes a request down and takes its cost from the key's balance.
    pub(crate) fn ledger_add(&self, entry: &Entry) -> Result<(), StoreError> {
        let mut write = self.write();
        let transaction = write.transaction()?;
        let usage = &entry.usage;
        transaction
            .prepare_cached(
                "INSERT INTO ledger VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET \
                 requests = requests + 1, hit_tokens = hit_tokens + excluded.hit_tokens, \
                 miss_tokens = miss_tokens + excluded.miss_tokens, \
                 completion_tokens = completion_tokens + excluded.completion_tokens, \
                 reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens, \
                 cost_pico = cost_pico + excluded.cost_pico, seconds = seconds + excluded.seconds, \
                 joules = coalesce(joules + excluded.joules, joules, excluded.joules), \
                 joules_label = \
                 coalesce(min(joules_label, excluded.joules_label), joules_label, excluded.joules_label)",
            )?
            .execute(params![
                entry.key,
                day(now_ms()),
                entry.model,
                usage.prompt_cache_hit_tokens as i64,
                usage.prompt_cache_miss_tokens as i64,
                usage.completion_tokens as i64,
                usage.completion_tokens_details.reasoning_tokens as i64,
                entry.cost_pico,
                entry.seconds,
                entry.joules,
                entry.joules_label,
            ])?;
        transaction
            .prepare_cached(
                "UPDATE keys SET balance_pico = balance_pico - ? WHERE id = ? AND balance_pico IS NOT NULL",
            )?
            .execute(params![entry.cost_pico, entry.key])?;
        Ok(transaction.commit()?)
    }

    /// The days from `from` to `to` (both included) of a key, or of all keys together.
    ///
    /// # Errors
    /// If the store fails.
    pub fn usage(&self, key: Option<i64>, from: &str, to: &str) -> Result<(Vec<UsageRow>, UsageSum), StoreError> {
        let read = self.read();
        let mut statement = read.prepare_cached(
            "SELECT day, model, sum(requests), sum(hit_tokens), sum(miss_tokens), sum(completion_tokens), \
             sum(reasoning_tokens), sum(cost_pico), sum(seconds), sum(joules), min(joules_label) FROM ledger \
             WHERE (?1 IS NULL OR key = ?1) AND day BETWEEN ?2 AND ?3 GROUP BY day, model ORDER BY day, model",
        )?;
        let (mut total, mut total_pico) = (UsageSum::default(), 0i64);
        let rows = statement.query_map(params![key, from, to], |row| {
            let pico: i64 = row.get(7)?;
            let sum = UsageSum {
                requests: row.get(2)?,
                cache_hit_tokens: row.get(3)?,
                cache_miss_tokens: row.get(4)?,
                completion_tokens: row.get(5)?,
                reasoning_tokens: row.get(6)?,
                cost: money(pico),
                seconds: row.get(8)?,
                joules: row.get(9)?,
                joules_label: row.get(10)?,
            };
            total_pico = total_pico.saturating_add(pico);
            add(&mut total, &sum);
            Ok(UsageRow { day: row.get(0)?, model: row.get(1)?, sum })
        })?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        total.cost = money(total_pico);
        Ok((rows, total))
    }
}

fn add(total: &mut UsageSum, row: &UsageSum) {
    total.requests += row.requests;
    total.cache_hit_tokens += row.cache_hit_tokens;
    total.cache_miss_tokens += row.cache_miss_tokens;
    total.completion_tokens += row.completion_tokens;
    total.reasoning_tokens += row.reasoning_tokens;
    total.seconds += row.seconds;
    if let Some(joules) = row.joules {
        *total.joules.get_or_insert(0.0) += joules;
    }
    // A sum of which a part is estimated is estimated: that label is the first of the two by its letters as well.
    total.joules_label = total.joules_label.take().into_iter().chain(row.joules_label.clone()).min();
}

/// A sum of millionths of millionths as a decimal number: six places, more only where they are not zero.
pub fn money(pico: i64) -> String {
    let (sign, value) = (if pico < 0 { "-" } else { "" }, pico.unsigned_abs());
    let (whole, rest) = (value / 1_000_000_000_000, value % 1_000_000_000_000);
    let places = format!("{rest:012}");
    let (micro, pico) = places.split_at(6);
    format!("{sign}{whole}.{micro}{}", pico.trim_end_matches('0'))
}

/// A decimal number as millionths of millionths.
///
/// # Errors
/// In words what is wrong with it.
pub fn parse_money(text: &str, places_max: usize) -> Result<i64, String> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !number(whole) || (digits.contains('.') && !number(rest)) {
        return Err(format!("{text:?} is not a decimal number, such as 0.27"));
    }
    if rest.len() > places_max {
        return Err(format!("{text} has more than {places_max} decimal places"));
    }
    let value = format!("{whole}{rest:0<12}").parse::<i64>();
    value.map(|value| sign * value).map_err(|_| format!("{text} is too large"))
}

/// The UTC day of a moment, as `YYYY-MM-DD`.
pub(crate) fn day(ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::keys::NewKey;
    use super::*;

    #[test]
    fn money_is_written_and_read() {
        for (pico, text) in
            [(0, "0.000000"), (123_000_000, "0.000123"), (1, "0.000000000001"), (-1_500_000_000_000, "-1.500000")]
        {
            assert_eq!(money(pico), text);
            assert_eq!(parse_money(text, 12), Ok(pico));
        }
        assert_eq!(parse_money("2", 6), Ok(2_000_000_000_000));
        for wrong in ["", "-", "1.", ".5", "1e3", "1,5", "0.1234567", "99999999999999999999"] {
            assert!(parse_money(wrong, 6).is_err(), "{wrong}");
        }
    }

    #[test]
    fn deepseeks_prices_give_exact_sums() {
        // V3 in 2025: 0.07 / 0.27 / 1.10 for a million tokens.
        let prices = Prices { hit_micro: 70_000, miss_micro: 270_000, output_micro: 1_100_000, ..Prices::default() };
        assert_eq!(money(prices.cost_pico(&Usage::of(3_000_000, 1_000_000, 1_000_000, 0))), "1.710000");
        assert_eq!(money(prices.cost_pico(&Usage::of(1, 0, 1, 0))), "0.00000137");
    }

    #[test]
    fn requests_add_up_by_day_and_model_and_are_taken_from_the_balance() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let prices = Prices { miss_micro: 1_000_000, output_micro: 2_000_000, ..Prices::default() };
        let balance_pico = Some(parse_money("1", 6).unwrap());
        let new = NewKey { name: "a".into(), prices: prices.clone(), balance_pico, ..NewKey::default() };
        let (key, secret) = store.key_new(&new).unwrap();
        let usage = Usage::of(100, 40, 10, 5);
        let entry = Entry {
            key: key.id,
            model: "m".into(),
            cost_pico: prices.cost_pico(&usage),
            usage,
            seconds: 0.5,
            joules: None,
            joules_label: None,
        };
        store.ledger_add(&entry).unwrap();
        store.ledger_add(&Entry { joules: Some(2.0), joules_label: Some("measured".into()), ..entry }).unwrap();
        let (rows, total) = store.usage(Some(key.id), "2000-01-01", "2999-12-31").unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].sum.requests, rows[0].sum.cache_hit_tokens, rows[0].sum.cache_miss_tokens), (2, 80, 120));
        assert_eq!((total.cost.as_str(), total.joules), ("0.000160", Some(2.0)));
        assert_eq!(money(store.key_of(&secret).unwrap().unwrap().balance_pico.unwrap()), "0.999840");
        assert!(store.usage(Some(key.id + 1), "2000-01-01", "2999-12-31").unwrap().0.is_empty());
        assert!(store.usage(None, "2000-01-01", "2000-12-31").unwrap().0.is_empty());
    }

    #[test]
    fn a_sum_with_an_estimate_in_it_is_an_estimate() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (key, _) = store.key_new(&NewKey { name: "a".into(), ..NewKey::default() }).unwrap();
        let add = |model: &str, label: Option<&str>| {
            let joules_label = label.map(str::to_string);
            let usage = Usage::of(1, 0, 1, 0);
            let joules = label.map(|_| 1.0);
            let (model, seconds, cost_pico) = (model.to_string(), 0.1, 0);
            store.ledger_add(&Entry { key: key.id, model, cost_pico, usage, seconds, joules, joules_label }).unwrap();
            let (rows, total) = store.usage(None, "2000-01-01", "2999-12-31").unwrap();
            let labels = rows.into_iter().map(|row| row.sum.joules_label.unwrap_or_default());
            (labels.collect::<Vec<_>>().join(","), total.joules_label.unwrap_or_default())
        };
        let seen = |rows: &str, total: &str| (rows.to_string(), total.to_string());
        assert_eq!(add("m", None), seen("", ""));
        assert_eq!(add("m", Some("measured")), seen("measured", "measured"));
        assert_eq!(add("n", Some("estimated")), seen("measured,estimated", "estimated"));
        assert_eq!(add("m", Some("estimated")), seen("estimated,estimated", "estimated"));
        assert_eq!(add("m", Some("measured")), seen("estimated,estimated", "estimated"));
    }

    #[test]
    fn days_are_utc() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_795_305_599_999), "2026-11-21");
        assert_eq!(day(1_795_305_600_000), "2026-11-22");
    }
}
