//! What all handlers share: the model, the engine, the store, limits, and who is asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use axum::http::{HeaderMap, StatusCode, header};
use engine::pages::Owner;
use sha2::{Digest, Sha256};

use crate::admission::Admission;
use crate::driver::Driver;
use crate::error::{ApiError, ApiResult};
use crate::guide::Grammars;
use crate::language::{Served, Traits};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::prompt_cache::{Binding, Bytes32, PromptCache};
use crate::store::ledger::Prices;
use crate::store::{Store, StoreError};

/// What all handlers share.
pub(crate) struct State {
    pub(crate) served: Served,
    pub(crate) traits: Traits,
    pub(crate) grammars: Grammars,
    pub(crate) limits: Limits,
    pub(crate) driver: Driver,
    pub(crate) store: Arc<Store>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Metrics,
    /// On disk, where there is one.
    pub(crate) prompt_cache: Option<Arc<PromptCache>>,
    /// Seconds since 1970.
    pub(crate) started_s: u64,
    pub(crate) stopping: AtomicBool,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The key's number; 0 where no keys were ever made.
    pub(crate) key: i64,
    pub(crate) prices: Prices,
    pub(crate) balance_pico: Option<i64>,
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) answers_max: Option<u32>,
    /// What its pages on disk are bound to: the hash of the key, zeros where there is none.
    pub(crate) binding: Bytes32,
    /// For whom it asks, where it says so (`user_id`), as a hash.
    pub(crate) user: Option<Bytes32>,
}

/// The longest `user_id`, in bytes.
const USER_ID_BYTES_MAX: usize = 512;

impl Caller {
    /// The same caller, asking for one of its users: users of one key share no cached pages, and take turns.
    pub(crate) fn for_user(mut self, user_id: Option<&str>) -> ApiResult<Caller> {
        let Some(user_id) = user_id.filter(|id| !id.is_empty()) else { return Ok(self) };
        if user_id.len() > USER_ID_BYTES_MAX {
            let message = format!("user_id has {} bytes; the limit is {USER_ID_BYTES_MAX}", user_id.len());
            return Err(ApiError::value("user_id", message));
        }
        let hash = Sha256::new_with_prefix(self.binding).chain_update(self.key.to_le_bytes()).chain_update(user_id);
        self.user = Some(hash.finalize().into());
        Ok(self)
    }

    /// Whose cached pages may be used: the key's number, or with the highest bit a user's hash.
    pub(crate) fn owner(&self) -> Owner {
        let of_user = |hash: Bytes32| Owner::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8])) | 1 << 63;
        self.user.map_or(self.key as Owner, of_user)
    }

    /// What the owner's pages on disk are bound to.
    pub(crate) fn bound(&self) -> Binding {
        Binding { key: self.binding, user: self.user.unwrap_or_default() }
    }

    /// Refuses whoever has spent everything.
    pub(crate) fn check_balance(&self) -> ApiResult<()> {
        if self.balance_pico.is_some_and(|pico| pico <= 0) {
            let error = ApiError::new(StatusCode::PAYMENT_REQUIRED, "the balance of this key is used up");
            return Err(error.with_code("insufficient_balance"));
        }
        Ok(())
    }
}

impl State {
    /// The key that a request came with: `Authorization: Bearer KEY`, or Anthropic's `x-api-key`.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> ApiResult<Caller> {
        let failed = |error: StoreError| store_error(&error);
        if !self.store.any_key().map_err(failed)? {
            let prices = Prices::default();
            let (balance_pico, requests_per_minute, answers_max, binding) = (None, None, None, [0; 32]);
            return Ok(Caller { key: 0, prices, balance_pico, requests_per_minute, answers_max, binding, user: None });
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| {
            let (scheme, secret) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
        });
        let secret = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()));
        let refused = |message| ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key");
        let Some(secret) = secret else {
            return Err(refused("this server needs an API key: send Authorization: Bearer KEY"));
        };
        let Some(key) = self.store.key_of(secret).map_err(failed)? else {
            return Err(refused("the API key is not one of this server's, or it was revoked"));
        };
        Ok(Caller {
            key: key.id,
            prices: key.prices,
            balance_pico: key.balance_pico,
            requests_per_minute: key.requests_per_minute,
            answers_max: key.answers_max,
            binding: key.hash,
            user: None,
        })
    }

    /// Does something with the store, on a thread that may wait for the disk.
    pub(crate) async fn store<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> ApiResult<T> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || what(&store)).await;
        done.map_err(|_| ApiError::internal("the store broke down"))?.map_err(|error| store_error(&error))
    }

    /// Whether the server was told to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The sentence of a failing store without paths.
fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Value(message) => ApiError::value("value", message.clone()),
        StoreError::Sql(rusqlite::Error::SqliteFailure(code, _)) if code.code == rusqlite::ErrorCode::DiskFull => {
            ApiError::unavailable("the server's disk is full", 60)
        }
        _ => ApiError::internal("the server's store failed"),
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
