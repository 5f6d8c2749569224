//! Tokens to text as they arrive.

use crate::tokenizer::{Decoding, Specials, Tokenizer};

/// Decodes tokens one by one. What [`StreamDecoder::push`] returns is final: never half a character, never text that
/// a later token would change; where bytes are tokens, a run of them comes out when it ends. All pieces together are
/// [`Tokenizer::decode`] of all tokens.
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    specials: Specials,
    decoding: Decoding,
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
    leading_spaces_left: usize,
    /// No token was decoded yet.
    at_start: bool,
}

impl<'a> StreamDecoder<'a> {
    /// Starts a text.
    pub fn new(tokenizer: &'a Tokenizer, specials: Specials) -> StreamDecoder<'a> {
        let decoding = tokenizer.decoding;
        let leading_spaces_left = decoding.leading_spaces;
        StreamDecoder { tokenizer, specials, decoding, pending: Vec::new(), leading_spaces_left, at_start: true }
    }

    /// The text that this token completes; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> String {
        if self.specials == Specials::Hide && self.tokenizer.is_special(id) {
            return String::new();
        }
        let bytes = self.tokenizer.token_bytes(id).unwrap_or("\u{fffd}".as_bytes());
        let skip = if self.at_start && self.decoding.first_token_spaces {
            bytes.iter().take_while(|&&byte| byte == b' ').count()
        } else {
            0
        };
        self.at_start = false;
        let mut text = String::new();
        if self.decoding.byte_runs {
            if self.tokenizer.is_byte(id) {
                self.pending.extend_from_slice(&bytes[skip..]);
                return text;
            }
            text = self.take_run();
        }
        self.pending.extend_from_slice(&bytes[skip..]);
        text.push_str(&self.take_complete(false));
        self.without_leading_spaces(text)
    }

    /// What is left at the end: bytes that never became a character are written as U+FFFD.
    pub fn finish(mut self) -> String {
        let text = if self.decoding.byte_runs { self.take_run() } else { self.take_complete(true) };
        self.without_leading_spaces(text)
    }

    /// The text of a run of byte tokens that has ended.
    fn take_run(&mut self) -> String {
        let run = std::mem::take(&mut self.pending);
        let count = run.len();
        String::from_utf8(run).unwrap_or_else(|_| String::from(char::REPLACEMENT_CHARACTER).repeat(count))
    }

    fn take_complete(&mut self, at_end: bool) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let bad = match error.error_len() {
                        Some(length) => length,
                        None if at_end => invalid.len(),
                        None => {
                            rest = invalid;
                            break;
                        }
                    };
                    let marks = if self.decoding.replace_each_byte { bad } else { 1 };
                    text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, marks));
                    rest = &invalid[bad..];
                }
            }
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
        text
    }

    fn without_leading_spaces(&mut self, mut text: String) -> String {
        while self.leading_spaces_left > 0 && !text.is_empty() {
            if text.starts_with(' ') {
                text.remove(0);
                self.leading_spaces_left -= 1;
            } else {
                self.leading_spaces_left = 0;
            }
        }
        text
    }
}
