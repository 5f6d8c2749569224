//! Text to tokens and back.
//!
//! - [`Tokenizer`]: `tokenizer.json` files and the vocabularies inside GGUF files. Text from users, models and tools
//!   never becomes a special token; only text that a chat template itself wrote may ([`Segment`]).
//! - [`StreamDecoder`]: tokens to text as they arrive, never half a character.
//! - [`ChatTemplate`]: published Jinja chat templates, rendered as the reference renders them, with the origin of
//!   every character known.
//! - [`ReasoningSplitter`] and [`StopStrings`]: what streams out of a model, parted into reasoning and answer, and cut
//!   at stop strings, whatever the pieces in which it arrives.
//!
//! Model files, templates and text are hostile until parsed: every entry point has a typed error and a bound on the
//! time and memory that it takes.

mod chat;
mod reasoning;
mod segment;
mod stop;
mod stream;
mod tokenizer;

pub use chat::{ChatInput, ChatTemplate, TemplateError};
pub use reasoning::{ReasoningFormat, ReasoningPiece, ReasoningSplitter};
pub use segment::Segment;
pub use stop::{StopMatch, StopStrings};
pub use stream::StreamDecoder;
pub use tokenizer::{EncodeError, GgufVocabulary, Specials, Tokenizer, TokenizerError, known_pre_tokenizers};
