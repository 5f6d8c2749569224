//! What the terminal can show.

use std::io::{IsTerminal, Write};

/// Standard output, with reasoning dimmed where that can be seen.
pub(crate) struct Screen {
    colour: bool,
    dim: bool,
}

impl Screen {
    /// Colours only on a terminal, and not where `NO_COLOR` is set.
    pub(crate) fn new() -> Screen {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Screen { colour, dim: false }
    }

    /// Prints a piece of the answer at once.
    pub(crate) fn content(&mut self, text: &str) -> std::io::Result<()> {
        self.set_dim(false)?;
        self.print(text)
    }

    /// Prints a piece of the reasoning at once.
    pub(crate) fn reasoning(&mut self, text: &str) -> std::io::Result<()> {
        self.set_dim(true)?;
        self.print(text)
    }

    /// Ends an answer: back to normal, on a new line.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        self.set_dim(false)?;
        self.print("\n")
    }

    /// A dimmed line on standard error.
    pub(crate) fn note(&self, text: &str) {
        if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            eprintln!("\x1b[2m{text}\x1b[0m");
        } else {
            eprintln!("{text}");
        }
    }

    fn set_dim(&mut self, dim: bool) -> std::io::Result<()> {
        if self.colour && self.dim != dim {
            let code = if dim { "\x1b[2m" } else { "\x1b[0m" };
            std::io::stdout().write_all(code.as_bytes())?;
        }
        self.dim = dim;
        Ok(())
    }

    fn print(&self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(printable(text).as_bytes())?;
        out.flush()
    }
}

/// Text without control characters that could command the terminal; lines and tabs stay.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_model_cannot_command_the_terminal() {
        assert_eq!(super::printable("a\x1b]0;title\x07b\n\tc\u{9b}31m"), "a]0;titleb\n\tc31m");
    }
}
