//! `cargo xtask tidy`: rules about the files themselves that no compiler checks.
//!
//! It reads the files that git tracks. Each finding names the place, what is wrong, the value and
//! the limit. A function or file over its limit may stay only by an entry of [`RATCHET`] with a
//! reason; it may not grow past the entry, and an entry that is no longer needed is a finding too.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};

use crate::repository;
use crate::scan::{code_only, functions, has_word};

/// Columns of a line of Rust.
const COLUMNS_MAX: usize = 120;
/// Lines of a function outside tests: what one sees at once.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file before its tests; `tables.rs` is exempt.
const FILE_LINES_MAX: usize = 800;
/// Size of a tracked file.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// A file or function that may be longer than the limit, up to `lines`.
struct Exception {
    path: &'static str,
    /// Empty for the file as a whole.
    function: &'static str,
    lines: usize,
    reason: &'static str,
}

const RATCHET: &[Exception] = &[];

/// Tracked files that may be larger than the limit, each with its reason.
const LARGE_FILES: &[(&str, &str)] = &[
    (
        "crates/text/tests/fixtures/tokenizers/deepseek/tokenizer.json",
        "a published tokenizer, whole: its ids are compared with the reference's",
    ),
    ("models/nano/nano.gguf", "the built-in model: it is part of the program"),
    ("models/nano-base/model.safetensors", "the base that reinforcement begins with: an hour and a half to make again"),
];

/// Crates whose output is what their functions return.
const SILENT_CRATES: [&str; 6] = ["engine", "eval", "hub", "kernels", "model", "text"];

/// Checks the repository; an error lists all findings.
pub(crate) fn run() -> anyhow::Result<()> {
    let (files, findings) = check_repository(&repository::root())?;
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    println!("{files} files are tidy");
    Ok(())
}

/// The number of files and the findings.
fn check_repository(root: &Path) -> anyhow::Result<(usize, Vec<String>)> {
    let files = repository::files(root)?;
    let mut tidy = Tidy::new(RATCHET);
    let mut pages = String::new();
    for path in &files {
        let file = root.join(path);
        let bytes = file.metadata().with_context(|| path.clone())?.len();
        if bytes > FILE_BYTES_MAX {
            tidy.check_large_file(path, bytes);
            continue;
        }
        let content = std::fs::read(&file).with_context(|| path.clone())?;
        // What is not UTF-8, or has a zero, is no text.
        let Some(text) = String::from_utf8(content).ok().filter(|text| !text.contains('\0')) else { continue };
        tidy.check_text(path, &text);
        if ["README.md", "docs/ARCHITECTURE.md"].contains(&path.as_str()) {
            pages += &text;
        }
    }
    tidy.check_links(&files, &pages);
    tidy.check_exceptions(&files);
    Ok((files.len(), tidy.findings))
}

struct Tidy {
    ratchet: &'static [Exception],
    /// Indices of the exceptions that were needed.
    used: BTreeSet<usize>,
    findings: Vec<String>,
}

impl Tidy {
    fn new(ratchet: &'static [Exception]) -> Tidy {
        Tidy { ratchet, used: BTreeSet::new(), findings: Vec::new() }
    }

    fn find(&mut self, path: &str, line: usize, what: impl std::fmt::Display) {
        self.findings.push(format!("{path}:{line}: {what}"));
    }

    fn check_text(&mut self, path: &str, text: &str) {
        self.check_words(path, text);
        if path.ends_with(".rs") {
            self.check_rust(path, text);
        }
        match path {
            "Cargo.toml" => self.check_reasons(path, text),
            "Cargo.lock" => self.check_sources(path, text),
            _ => {}
        }
    }

    fn check_rust(&mut self, path: &str, source: &str) {
        if !source.trim_start().starts_with("//!") {
            self.find(path, 1, "the file does not begin with a module doc (//!)");
        }
        let code = code_only(source);
        for (index, (line, raw)) in code.lines().zip(source.lines()).enumerate() {
            let columns = raw.chars().count();
            // A text that the formatter cannot break (a message, a pattern) may run over.
            if columns > COLUMNS_MAX && !raw.contains('"') {
                self.find(path, index + 1, format_args!("line of {columns} columns, limit {COLUMNS_MAX}"));
            }
            if has_word(line, "unsafe") && !path.starts_with("crates/kernels/") {
                self.find(path, index + 1, "unsafe outside crates/kernels");
            }
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if has_word(line, word) {
                    self.find(path, index + 1, format_args!("{word} in the code"));
                }
            }
            if line.contains("#[ignore]") {
                self.find(path, index + 1, "an ignored test without a reason: #[ignore = \"why\"]");
            }
        }
        let product_lines = product_lines(path, source);
        self.check_lengths(path, &code, product_lines);
        if SILENT_CRATES.iter().any(|name| path.starts_with(&format!("crates/{name}/src/"))) {
            self.check_silence(path, &code, product_lines);
        }
    }

    fn check_lengths(&mut self, path: &str, code: &str, product_lines: usize) {
        for function in functions(code).iter().filter(|function| function.line <= product_lines) {
            let limit = self.limit(path, &function.name, function.lines, FUNCTION_LINES_MAX);
            if function.lines > limit {
                let (name, lines) = (&function.name, function.lines);
                self.find(path, function.line, format_args!("function {name} of {lines} lines, limit {limit}"));
            }
        }
        if !path.ends_with("/tables.rs") {
            let limit = self.limit(path, "", product_lines, FILE_LINES_MAX);
            if product_lines > limit {
                self.find(path, 1, format_args!("file of {product_lines} lines before its tests, limit {limit}"));
            }
        }
    }

    /// The limit that holds for a file or function: the general one, or that of its exception.
    fn limit(&mut self, path: &str, function: &str, lines: usize, general: usize) -> usize {
        let is_this = |e: &Exception| e.path == path && e.function == function;
        match self.ratchet.iter().position(is_this) {
            Some(index) if lines > general => {
                self.used.insert(index);
                self.ratchet[index].lines
            }
            _ => general,
        }
    }

    fn check_silence(&mut self, path: &str, code: &str, product_lines: usize) {
        for (index, line) in code.lines().enumerate().take(product_lines) {
            for word in ["print!", "println!", "eprint!", "eprintln!"] {
                if has_word(line, word) {
                    self.find(path, index + 1, format_args!("{word} in a library crate"));
                }
            }
        }
    }

    /// Words that speak of one machine or of unfinished work.
    fn check_words(&mut self, path: &str, text: &str) {
        // What others wrote, as it was built.
        if path.starts_with("web/dist/") {
            return;
        }
        // Split, so that this file does not hold them.
        const PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/tmp/bash", "_jobs")];
        const HOSTS: [&str; 3] =
            [concat!("index.crates", ".io"), concat!("static.crates", ".io"), concat!("files.python", "hosted.org")];
        let is_lock = path.ends_with(".lock") || path.ends_with("-lock.json");
        for (index, line) in text.lines().enumerate() {
            for word in PATHS.into_iter().filter(|word| has_root(line, word)) {
                self.find(path, index + 1, format_args!("a path of one machine: {word}"));
            }
            for word in HOSTS.into_iter().filter(|word| !is_lock && line.contains(word)) {
                self.find(path, index + 1, format_args!("a registry's host: {word}"));
            }
            if has_word(line, concat!("FIX", "ME")) {
                self.find(path, index + 1, concat!("FIX", "ME: do it, or write an issue"));
            }
        }
    }

    /// Every third party's crate in the root manifest has its reason on its line.
    fn check_reasons(&mut self, path: &str, manifest: &str) {
        let lines = manifest.lines().enumerate();
        let section = lines.skip_while(|(_, line)| line.trim() != "[workspace.dependencies]").skip(1);
        for (index, line) in section.take_while(|(_, line)| !line.starts_with('[')) {
            let is_entry = line.starts_with(|c: char| c.is_ascii_alphabetic());
            let is_ours = line.contains("path = \"crates/");
            if is_entry && !is_ours && comment(line).is_none_or(|reason| reason.len() < 4) {
                self.find(path, index + 1, "a dependency without its reason in a comment on the line");
            }
        }
    }

    /// All packages come from the public registry, so that a fresh clone builds anywhere.
    fn check_sources(&mut self, path: &str, lock: &str) {
        for (index, line) in lock.lines().enumerate() {
            let source = line.strip_prefix("source = \"").and_then(|rest| rest.strip_suffix('"'));
            if source.is_some_and(|source| source != "registry+https://github.com/rust-lang/crates.io-index") {
                self.find(path, index + 1, format_args!("a package that is not from the public registry: {line}"));
            }
        }
    }

    fn check_large_file(&mut self, path: &str, bytes: u64) {
        if !LARGE_FILES.iter().any(|(allowed, _)| *allowed == path) {
            self.find(path, 1, format_args!("file of {bytes} bytes, limit {FILE_BYTES_MAX}"));
        }
    }

    /// Every page in docs/ can be found from the two pages that one opens first.
    fn check_links(&mut self, files: &[String], pages: &str) {
        if pages.is_empty() {
            return;
        }
        for path in files.iter().filter(|path| path.starts_with("docs/") && *path != "docs/ARCHITECTURE.md") {
            let name = path.rsplit('/').next().unwrap_or(path);
            if !pages.contains(name) {
                self.find(path, 1, "neither README.md nor docs/ARCHITECTURE.md mentions this page");
            }
        }
    }

    /// Exceptions that are not needed any more, or that nobody gave a reason for.
    fn check_exceptions(&mut self, files: &[String]) {
        for (index, exception) in self.ratchet.iter().enumerate() {
            let Exception { path, function, reason, .. } = exception;
            if !self.used.contains(&index) {
                self.find(path, 1, format_args!("RATCHET has an entry for it ('{function}') that is not needed"));
            }
            if reason.is_empty() {
                self.find(path, 1, format_args!("RATCHET gives no reason for its entry ('{function}')"));
            }
        }
        for (path, reason) in LARGE_FILES {
            if !files.iter().any(|file| file == path) || reason.is_empty() {
                self.find(path, 1, "LARGE_FILES names a file that is not there, or gives no reason");
            }
        }
    }
}

/// How many lines of a file are product code: those before its tests; none of a file of tests.
fn product_lines(path: &str, source: &str) -> usize {
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/");
    if is_test {
        return 0;
    }
    let lines: Vec<&str> = source.lines().collect();
    // `mod tests;` in a file of its own does not end this one.
    let begins_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(begins_tests).unwrap_or(lines.len())
}

/// Whether the path stands in the line as an absolute one, not as the end of another path.
fn has_root(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.~}*".contains(c))
    })
}

/// The comment at the end of a line of TOML.
fn comment(line: &str) -> Option<&str> {
    let mut quoted = false;
    let at = line.find(|c| {
        quoted ^= c == '"';
        c == '#' && !quoted
    })?;
    Some(line[at + 1..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let (files, findings) = check_repository(&repository::root()).unwrap();
        assert!(files > 20, "only {files} files were found");
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    /// The findings of one file, without its path.
    fn findings(path: &str, text: &str) -> Vec<String> {
        findings_with(&[], path, text)
    }

    fn findings_with(ratchet: &'static [Exception], path: &str, text: &str) -> Vec<String> {
        let mut tidy = Tidy::new(ratchet);
        tidy.check_text(path, text);
        tidy.check_exceptions(&[]);
        // Entries of the lists of exceptions are findings of other files here.
        tidy.findings.iter().filter_map(|f| f.strip_prefix(path)).map(str::to_string).collect()
    }

    /// The first finding of a Rust file whose second line is `line`.
    #[track_caller]
    fn caught(path: &str, line: &str, what: &str) {
        let found = findings(path, &format!("//! Doc.\n{line}\n"));
        assert!(found.len() == 1 && found[0].starts_with(&format!(":2: {what}")), "{line}: {found:?}");
    }

    #[test]
    fn each_rule_for_code_catches_its_line() {
        caught("crates/model/src/a.rs", "fn f() { unsafe { g() } }", "unsafe");
        caught("crates/model/src/a.rs", "fn f() { todo!() }", "todo!");
        caught("crates/model/src/a.rs", "fn f() { println!() }", "println! in a library");
        caught("crates/model/src/a.rs", "#[ignore]", "an ignored test");
        caught("crates/model/src/a.rs", concat!("// FIX", "ME later"), "FIX");
        caught("crates/model/src/a.rs", &"x".repeat(121), "line of 121 columns, limit 120");
        caught("crates/fathom/src/a.rs", concat!("// see /wo", "rk/x"), "a path of one machine");
        caught("crates/fathom/src/a.rs", concat!("// see index.crates", ".io"), "a registry's host");
    }

    #[test]
    fn what_is_allowed_is_not_caught() {
        #[track_caller]
        fn fine(path: &str, line: &str) {
            assert_eq!(findings(path, &format!("//! Doc.\n{line}\n")), [""; 0], "{line}");
        }
        fine("crates/kernels/src/a.rs", "fn f() { unsafe { g() } }");
        fine("crates/model/src/a.rs", "// unsafe and todo! in a comment, \"dbg!\" in a string");
        fine("crates/fathom/src/a.rs", "fn f() { println!() }");
        fine("crates/model/src/a.rs", "#[ignore = \"takes an hour\"]");
        fine("crates/model/src/a.rs", "#[cfg(test)]\nmod tests {\nfn f() { println!() }\n}");
        fine("crates/model/src/a.rs", concat!("// target/wo", "rk/x"));
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(findings("a.rs", "fn f() {}\n"), [":1: the file does not begin with a module doc (//!)"]);
    }

    fn long_function(lines: usize) -> String {
        format!("//! Doc.\nfn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn lengths_have_limits_but_not_in_tests() {
        assert_eq!(findings("a.rs", &long_function(70)), [""; 0]);
        assert_eq!(findings("a.rs", &long_function(71)), [":2: function long of 71 lines, limit 70"]);
        assert_eq!(findings("crates/model/tests/a.rs", &long_function(71)), [""; 0]);
        let file = "//! Doc.\n".repeat(801);
        assert_eq!(findings("a.rs", &file), [":1: file of 801 lines before its tests, limit 800"]);
        assert_eq!(findings("crates/text/src/tables.rs", &file), [""; 0]);
    }

    #[test]
    fn an_exception_holds_until_it_is_outgrown_or_not_needed() {
        const RATCHET: &[Exception] = &[Exception { path: "a.rs", function: "long", lines: 80, reason: "one table" }];
        assert_eq!(findings_with(RATCHET, "a.rs", &long_function(80)), [""; 0]);
        assert_eq!(findings_with(RATCHET, "a.rs", &long_function(81)), [":2: function long of 81 lines, limit 80"]);
        let unneeded = ":1: RATCHET has an entry for it ('long') that is not needed";
        assert_eq!(findings_with(RATCHET, "a.rs", &long_function(70)), [unneeded]);
    }

    #[test]
    fn dependencies_have_reasons_and_come_from_the_registry() {
        let entries = "a = \"1\" # why a\nb = { version = \"#1\" }\nours = { path = \"crates/ours\" }\n";
        let manifest = format!("[workspace.dependencies]\n{entries}");
        let reason = ":3: a dependency without its reason in a comment on the line";
        assert_eq!(findings("Cargo.toml", &manifest), [reason]);
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\nsource = \"git+https://x\"\n";
        assert_eq!(findings("Cargo.lock", lock).len(), 1);
    }

    #[test]
    fn pages_and_large_files_are_accounted_for() {
        let mut tidy = Tidy::new(&[]);
        let files = ["docs/ARCHITECTURE.md", "docs/A.md", "docs/B.md"].map(str::to_string);
        tidy.check_links(&files, "see [A](docs/A.md)");
        tidy.check_large_file("big.bin", FILE_BYTES_MAX + 1);
        assert_eq!(tidy.findings.len(), 2, "{:?}", tidy.findings);
        assert!(tidy.findings[0].starts_with("docs/B.md:1: ") && tidy.findings[1].starts_with("big.bin:1: "));
    }
}
