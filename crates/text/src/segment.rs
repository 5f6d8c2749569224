//! A piece of a prompt and whether its author may write special tokens.

/// A run of prompt text with one origin.
///
/// A prompt is a list of segments; its text is their concatenation. Special tokens are recognised only where every
/// character of theirs is `trusted`: what a user, a model or a tool wrote is always encoded as ordinary text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The text.
    pub text: String,
    /// True for text that the chat template itself wrote, false for text from messages and tools.
    pub trusted: bool,
}

impl Segment {
    /// Text that a template wrote.
    pub fn trusted(text: impl Into<String>) -> Segment {
        Segment { text: text.into(), trusted: true }
    }

    /// Text from a user, a model or a tool.
    pub fn untrusted(text: impl Into<String>) -> Segment {
        Segment { text: text.into(), trusted: false }
    }
}
