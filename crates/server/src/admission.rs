//! Who may come in now: answers at the same time, for all and for each key, and requests a minute.
//!
//! Counted before any work is done for a request, so that the next one too many is told at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::error::{ApiError, ApiResult};
use crate::limits::Limits;
use crate::state::Caller;

/// The counts.
#[derive(Default)]
pub(crate) struct Admission {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    answers: usize,
    keys: HashMap<i64, OfKey>,
}

#[derive(Default)]
struct OfKey {
    answers: usize,
    /// Requests that may come at once, and since when that number holds.
    bucket: Option<(f64, Instant)>,
}

/// A place for so many answers, until it is dropped.
pub(crate) struct Place {
    admission: Arc<Admission>,
    key: i64,
    answers: usize,
}

impl Admission {
    /// A place for `answers` answers of a caller.
    pub(crate) fn enter(self: &Arc<Self>, limits: &Limits, caller: &Caller, answers: usize) -> ApiResult<Place> {
        self.enter_at(limits, caller, answers, Instant::now())
    }

    fn enter_at(self: &Arc<Self>, limits: &Limits, caller: &Caller, answers: usize, now: Instant) -> ApiResult<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.answers + answers > limits.answers_max {
            let message = format!(
                "the server works on {} answers; {answers} more would be above its limit of {}",
                counts.answers, limits.answers_max
            );
            return Err(ApiError::too_many(message, 1));
        }
        let of_key = counts.keys.entry(caller.key).or_default();
        let most = caller.answers_max.map_or(limits.answers_per_key_max, |max| max as usize);
        if of_key.answers + answers > most {
            let message = format!(
                "this key has {} answers running or waiting; {answers} more would be above its limit of {most}",
                of_key.answers
            );
            return Err(ApiError::too_many(message, 1));
        }
        if let Some(per_minute) = caller.requests_per_minute {
            of_key.take(f64::from(per_minute), now)?;
        }
        of_key.answers += answers;
        counts.answers += answers;
        Ok(Place { admission: Arc::clone(self), key: caller.key, answers })
    }

    /// Answers that have a place.
    pub(crate) fn answers(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).answers
    }
}

impl OfKey {
    /// Takes one request from the bucket, which fills up evenly.
    fn take(&mut self, per_minute: f64, now: Instant) -> ApiResult<()> {
        let (had, since) = self.bucket.unwrap_or((per_minute, now));
        let has = (had + now.duration_since(since).as_secs_f64() * per_minute / 60.0).min(per_minute);
        if has < 1.0 {
            self.bucket = Some((has, now));
            let wait_s = ((1.0 - has) * 60.0 / per_minute.max(1e-9)).ceil().clamp(1.0, 3600.0);
            return Err(ApiError::too_many(format!("this key may send {per_minute} requests a minute"), wait_s as u64));
        }
        self.bucket = Some((has - 1.0, now));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.answers -= self.answers;
        if let Some(of_key) = counts.keys.get_mut(&self.key) {
            of_key.answers -= self.answers;
            if of_key.answers == 0 && of_key.bucket.is_none() {
                counts.keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::ledger::Prices;

    fn caller(key: i64, requests_per_minute: Option<u32>) -> Caller {
        let (prices, answers_max, binding) = (Prices::default(), Some(2), [0; 32]);
        Caller { key, prices, balance_pico: None, requests_per_minute, answers_max, binding, user: None }
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let admission = Arc::new(Admission::default());
        let limits = Limits { answers_max: 3, ..Limits::default() };
        let first = admission.enter(&limits, &caller(1, None), 2).unwrap();
        assert_eq!(admission.enter(&limits, &caller(1, None), 1).err().unwrap().status, 429);
        let second = admission.enter(&limits, &caller(2, None), 1).unwrap();
        assert_eq!(admission.enter(&limits, &caller(3, None), 1).err().unwrap().retry_after_s, Some(1));
        drop((first, second));
        assert_eq!(admission.answers(), 0);
        assert!(admission.enter(&limits, &caller(1, None), 2).is_ok());
    }

    #[test]
    fn a_rate_is_kept_and_the_wait_is_told() {
        let admission = Arc::new(Admission::default());
        let (limits, caller, begin) = (Limits::default(), caller(1, Some(2)), Instant::now());
        let at = |s: u64| {
            let place = admission.enter_at(&limits, &caller, 1, begin + Duration::from_secs(s));
            place.map(drop).map_err(|error| error.retry_after_s)
        };
        assert_eq!((at(0), at(0), at(0)), (Ok(()), Ok(()), Err(Some(30))));
        assert_eq!((at(15), at(30), at(31)), (Err(Some(15)), Ok(()), Err(Some(29))));
    }
}
