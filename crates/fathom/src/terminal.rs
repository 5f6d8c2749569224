//! What goes to the terminal and how: standard output, notes on standard error, Ctrl-C.
//!
//! Text of models, their files and servers is hostile: on a terminal, control characters that could command it are
//! left out. In a pipe or a file standard output is what the model said, to the byte. A reader that went away is an
//! error on standard output (which ends the program quietly) and nothing on standard error.

use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::answer::Event;

/// The exit code of a program that Ctrl-C ended, as shells count it (128 + SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;

/// Standard output for an answer as it comes, with reasoning dimmed where that can be seen.
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    part: Part,
    at_line_start: bool,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Content,
    Reasoning,
}

impl Screen {
    /// Colours only on a terminal, and not where `NO_COLOR` is set.
    pub(crate) fn new() -> Screen {
        let terminal = std::io::stdout().is_terminal();
        let (colour, progress) = (terminal && !no_color(), Progress::new());
        Screen { terminal, colour, part: Part::Content, at_line_start: true, progress }
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows what happens on the way to an answer to a prompt of so many tokens.
    pub(crate) fn event(&mut self, event: Event, prompt_tokens: usize) -> std::io::Result<()> {
        match event {
            Event::Prompt(done) => {
                self.progress.prompt(done, prompt_tokens);
                Ok(())
            }
            Event::Reasoning(text) => {
                self.progress.clear();
                self.reasoning(text)
            }
            Event::Content(text) => {
                self.progress.clear();
                self.content(text)
            }
        }
    }

    /// A piece of the answer.
    fn content(&mut self, text: &str) -> std::io::Result<()> {
        self.become_part(Part::Content)?;
        self.print(text)
    }

    /// A piece of the reasoning: dimmed, or between markers where it cannot be dimmed.
    fn reasoning(&mut self, text: &str) -> std::io::Result<()> {
        self.become_part(Part::Reasoning)?;
        self.print(text)
    }

    /// Ends an answer: back to normal, on a new line.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        self.progress.clear();
        if self.part == Part::Reasoning {
            self.mark("\x1b[0m", "\n</think>")?;
            self.part = Part::Content;
        }
        if !self.at_line_start {
            self.print("\n")?;
        }
        Ok(())
    }

    /// A blank line parts reasoning from what follows.
    fn become_part(&mut self, part: Part) -> std::io::Result<()> {
        match (self.part, part) {
            (Part::Content, Part::Reasoning) => {
                if !self.at_line_start {
                    self.print("\n\n")?;
                }
                self.mark("\x1b[2m", "<think>\n")?;
            }
            (Part::Reasoning, Part::Content) => {
                self.mark("\x1b[0m", "\n</think>")?;
                self.print("\n\n")?;
            }
            _ => {}
        }
        self.part = part;
        Ok(())
    }

    fn mark(&mut self, code: &str, marker: &str) -> std::io::Result<()> {
        if self.colour { std::io::stdout().write_all(code.as_bytes()) } else { self.print(marker) }
    }

    fn print(&mut self, text: &str) -> std::io::Result<()> {
        if let Some(last) = text.chars().next_back() {
            self.at_line_start = last == '\n';
        }
        print(text)
    }
}

/// Writes to standard output at once.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() { out.write_all(printable(text).as_bytes()) } else { out.write_all(text.as_bytes()) }?;
    out.flush()
}

/// A dimmed line on standard error.
pub(crate) fn note(text: &str) {
    let text = printable(text);
    let dim = std::io::stderr().is_terminal() && !no_color();
    // Nobody can be told that standard error is closed.
    let _ =
        if dim { writeln!(std::io::stderr(), "\x1b[2m{text}\x1b[0m") } else { writeln!(std::io::stderr(), "{text}") };
}

/// An error in one line on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    complain_text(&one_line(error));
}

/// The same for what is text already.
pub(crate) fn complain_text(text: &str) {
    let _ = writeln!(std::io::stderr(), "fathom: {}", printable(text));
}

/// An error and its causes. Some errors say their cause themselves; nothing is said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Whether a reader went away.
pub(crate) fn broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A line that the next one replaces; only where somebody sees it.
pub(crate) struct Progress {
    seen: bool,
    shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { seen: std::io::stderr().is_terminal(), shown: false }
    }

    pub(crate) fn show(&mut self, text: &str) {
        if self.seen {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", printable(text));
            self.shown = true;
        }
    }

    /// Shows how far the reading of a prompt is, if that takes more than a moment.
    fn prompt(&mut self, done: usize, total: usize) {
        if done > 0 && total - done > 512 {
            self.show(&format!("reading {done} of {total} tokens"));
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// All of standard input as text, with a hint where somebody sits before it.
pub(crate) fn read_input(what: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        note(&format!("type {what}, then press Ctrl-D"));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input is not valid UTF-8 text")?;
    Ok(text)
}

/// A flag that Ctrl-C sets. Where the second one in a row should end the program, it does.
pub(crate) fn interrupt_flag(second_ends: bool) -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) && second_ends {
            if std::io::stdout().is_terminal() && !no_color() {
                // On standard error: the main thread may hold standard output while it waits for a slow reader.
                let _ = std::io::stderr().write_all(b"\x1b[0m\n");
            }
            std::process::exit(INTERRUPTED.into());
        }
    })
    .context("Ctrl-C cannot be handled")?;
    Ok(flag)
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Text without control characters that could command the terminal; lines and tabs stay.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cause_is_named_once() {
        let error = anyhow::anyhow!("the disk is full").context("b.json: the disk is full").context("a");
        assert_eq!(super::one_line(&error), "a: b.json: the disk is full");
    }

    #[test]
    fn a_model_cannot_command_the_terminal() {
        assert_eq!(super::printable("a\x1b]0;title\x07b\n\tc\u{9b}31m\rd"), "a]0;titleb\n\tc31md");
    }
}
