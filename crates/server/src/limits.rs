//! Every limit of the server in one place.
//!
//! What is beyond a limit is refused with a status and a sentence that names it; nothing grows without one. The
//! engine's own limits are beside these, in [`engine::limits::Limits`].

use std::time::Duration;

/// How much the server takes on, and how long it waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time; the next one is told so and closed.
    pub connections_max: usize,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// Time for the headers of a request, from the connection's or the last answer's end.
    pub header_wait: Duration,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// A body may take this long, and a second more for each [`Limits::body_bytes_per_second_min`].
    pub body_wait: Duration,
    /// Slowest body after [`Limits::body_wait`].
    pub body_bytes_per_second_min: usize,
    /// A reader that takes nothing for so long is cut off.
    pub write_wait: Duration,
    /// Comments (streams) and blank lines (others) keep the connection alive while nothing else is sent.
    pub keep_alive_every: Duration,
    /// Longest wait before a request is taken up.
    pub queue_wait: Duration,
    /// Time for running requests after the server is told to stop.
    pub shutdown_wait: Duration,
    /// Tokens that a reader may be behind before its request is cancelled.
    pub tokens_behind_max: usize,
    /// Answers that run and wait at the same time, for all keys together.
    pub answers_max: usize,
    /// The same for one key, unless the key has its own limit.
    pub answers_per_key_max: usize,
    /// Messages of a conversation.
    pub messages_max: usize,
    /// Prompts of one request to `/v1/completions`, and inputs of one to `/v1/embeddings`.
    pub prompts_max: usize,
    /// Answers to one prompt.
    pub n_max: usize,
    /// Largest `max_tokens` that may be asked for; the context ends answers earlier.
    pub max_tokens_max: usize,
    /// Stop strings.
    pub stop_max: usize,
    /// Bytes of one stop string.
    pub stop_bytes_max: usize,
    /// Tools.
    pub tools_max: usize,
    /// Likeliest tokens told with each token.
    pub top_logprobs_max: usize,
    /// Entries of `logit_bias`.
    pub logit_bias_max: usize,
    /// Bytes of a JSON schema or of all tools together, written as JSON.
    pub schema_bytes_max: usize,
    /// Bytes of a stored chat.
    pub chat_bytes_max: usize,
    /// Chats of one key.
    pub chats_max: usize,
    /// Kept responses of one key; the conversation of each has at most [`Limits::chat_bytes_max`].
    pub responses_max: usize,
    /// Kept responses are deleted when they are so old.
    pub response_age_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 4096,
            header_bytes_max: 64 << 10,
            header_wait: Duration::from_secs(10),
            body_bytes_max: 8 << 20,
            body_wait: Duration::from_secs(10),
            body_bytes_per_second_min: 1024,
            write_wait: Duration::from_secs(30),
            keep_alive_every: Duration::from_secs(10),
            queue_wait: Duration::from_secs(600),
            shutdown_wait: Duration::from_secs(20),
            tokens_behind_max: 2048,
            answers_max: 1024,
            answers_per_key_max: 1024,
            messages_max: 4096,
            prompts_max: 64,
            n_max: 8,
            max_tokens_max: 1 << 20,
            stop_max: 16,
            stop_bytes_max: 256,
            tools_max: 128,
            top_logprobs_max: 20,
            logit_bias_max: 1024,
            schema_bytes_max: 256 << 10,
            chat_bytes_max: 4 << 20,
            chats_max: 10_000,
            responses_max: 10_000,
            response_age_max: Duration::from_secs(30 * 86_400),
        }
    }
}
