//! Counters for Prometheus: numbers only, nothing of what was said.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::state::State;
use crate::wire::usage::{Extension, Usage};

/// Counts since the start.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: AtomicU64,
    hit_tokens: AtomicU64,
    miss_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    reasoning_tokens: AtomicU64,
    seconds: Mutex<Seconds>,
    /// Answers by status, 100 to 599.
    statuses: Mutex<std::collections::BTreeMap<u16, u64>>,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Seconds {
    wall: f64,
    queue: f64,
    prompt: f64,
    decode: f64,
    joules: f64,
}

impl Metrics {
    /// A request that is in the ledger.
    pub(crate) fn request(&self, usage: &Usage, extension: &Extension, wall: Duration) {
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.requests, 1);
        add(&self.hit_tokens, usage.prompt_cache_hit_tokens);
        add(&self.miss_tokens, usage.prompt_cache_miss_tokens);
        add(&self.completion_tokens, usage.completion_tokens);
        add(&self.reasoning_tokens, usage.completion_tokens_details.reasoning_tokens);
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.wall += wall.as_secs_f64();
        seconds.queue += extension.queue_seconds;
        seconds.prompt += extension.prompt_seconds;
        seconds.decode += extension.decode_seconds;
        seconds.joules += extension.joules.unwrap_or(0.0);
    }

    /// An answer with a status.
    pub(crate) fn status(&self, status: u16) {
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }
}

/// All metrics in Prometheus' text format.
pub(crate) fn render(state: &State) -> String {
    let (metrics, seen) = (&state.metrics, state.driver.seen());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let seconds = *metrics.seconds.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    line("fathom_requests_total", "counter", "Requests answered.", count(&metrics.requests));
    line(
        "fathom_prompt_cache_hit_tokens_total",
        "counter",
        "Prompt tokens found in the cache.",
        count(&metrics.hit_tokens),
    );
    line("fathom_prompt_cache_miss_tokens_total", "counter", "Prompt tokens computed.", count(&metrics.miss_tokens));
    line("fathom_completion_tokens_total", "counter", "Tokens of answers.", count(&metrics.completion_tokens));
    line("fathom_reasoning_tokens_total", "counter", "Tokens of reasoning.", count(&metrics.reasoning_tokens));
    line("fathom_request_seconds_total", "counter", "Time of requests from begin to end.", seconds.wall);
    line("fathom_queue_seconds_total", "counter", "Time of requests before they were taken up.", seconds.queue);
    line("fathom_prompt_seconds_total", "counter", "Time of requests from there to the first token.", seconds.prompt);
    line("fathom_decode_seconds_total", "counter", "Time of requests from there to the end.", seconds.decode);
    line("fathom_joules_total", "counter", "Energy of requests, where it is known.", seconds.joules);
    line("fathom_engine_steps_total", "counter", "Steps that computed something.", seen.steps as f64);
    line("fathom_engine_rows_total", "counter", "Rows that they computed.", seen.rows as f64);
    line("fathom_drafted_tokens_total", "counter", "Rows that were guesses at next tokens.", seen.drafted as f64);
    line("fathom_accepted_tokens_total", "counter", "Guesses that were right.", seen.accepted as f64);
    line("fathom_engine_seconds_total", "counter", "Time that they took.", seen.step_s);
    line("fathom_engine_breakdowns_total", "counter", "Panics of the engine.", seen.breakdowns as f64);
    line("fathom_answers_running", "gauge", "Answers that are computed now.", seen.running as f64);
    line("fathom_answers_waiting", "gauge", "Answers that wait.", seen.waiting as f64);
    line("fathom_answers_admitted", "gauge", "Answers that count against the limit.", state.admission.answers() as f64);
    line("fathom_pages_held", "gauge", "Cache pages held by requests.", seen.pages.held as f64);
    line("fathom_pages_total", "gauge", "Cache pages.", seen.pages.total as f64);
    if let Some(cache) = state.prompt_cache.as_ref().map(|cache| cache.state()) {
        line("fathom_prompt_cache_ready", "gauge", "1 when it is open.", f64::from(u8::from(cache.ready)));
        line("fathom_prompt_cache_pages", "gauge", "Pages of the prompt cache on disk.", cache.kept.pages as f64);
        line("fathom_prompt_cache_bytes", "gauge", "Their bytes.", cache.kept.bytes as f64);
        line("fathom_prompt_cache_read_total", "counter", "Pages restored from disk.", cache.read as f64);
        line("fathom_prompt_cache_written_total", "counter", "Pages written.", cache.written as f64);
        line("fathom_prompt_cache_dropped_total", "counter", "Pages not written.", cache.dropped as f64);
        line("fathom_prompt_cache_damaged_total", "counter", "Pages that did not open.", cache.damaged as f64);
    }
    line("fathom_connections", "gauge", "Open connections.", count(&metrics.connections));
    line(
        "fathom_connections_refused_total",
        "counter",
        "Connections above the limit.",
        count(&metrics.connections_refused),
    );
    let _ = writeln!(out, "# HELP fathom_responses_total Responses by status.\n# TYPE fathom_responses_total counter");
    for (status, count) in metrics.statuses.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(out, "fathom_responses_total{{status=\"{status}\"}} {count}");
    }
    out
}
