//! Just enough of Rust's syntax for the rules of tidy: what is code, and where functions end.

/// A function: its name, the number of its first line (from 1) and how many lines it takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// The source with comments and the contents of string and character literals replaced by spaces;
/// line breaks stay.
pub(crate) fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_or_comment_end(&text, at);
        if end == at {
            code.push(text[at]);
            at += 1;
        } else {
            code.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// All functions with a body, those inside others too.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let text: Vec<char> = code.chars().collect();
    let mut functions = Vec::new();
    let mut line = 1;
    for at in 0..text.len() {
        if text[at] == '\n' {
            line += 1;
        }
        if !word_at(&text, at, "fn") {
            continue;
        }
        let name: String =
            text[at + 2..].iter().skip_while(|c| c.is_whitespace()).take_while(|c| is_word(**c)).collect();
        // `fn(..)` without a name is a type.
        if let (false, Some(lines)) = (name.is_empty(), lines_of_body(&text[at..])) {
            functions.push(Function { name, line, lines });
        }
    }
    functions
}

/// Whether the word stands in the code, not as a part of a longer one.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_at(text: &[char], at: usize, word: &str) -> bool {
    let length = word.chars().count();
    text[at..].iter().take(length).copied().eq(word.chars())
        && !(at > 0 && is_word(text[at - 1]))
        && !text.get(at + length).copied().is_some_and(is_word)
}

/// From the signature to the closing brace; `None` if a semicolon ends the declaration.
fn lines_of_body(text: &[char]) -> Option<usize> {
    let (mut braces, mut nested, mut lines) = (0usize, 0i64, 1);
    for &c in text {
        match c {
            '\n' => lines += 1,
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            ';' if braces == 0 && nested == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(lines),
            '}' => braces = braces.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn literal_or_comment_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => find(text, at, |rest| rest[0] == '\n'),
        '/' if next == Some('*') => block_comment_end(text, at),
        '"' => string_end(text, at + 1),
        'r' if !(at > 0 && is_word(text[at - 1]) && !matches!(text[at - 1], 'b' | 'c')) => raw_string_end(text, at),
        '\'' if next == Some('\\') => find(text, at + 3, |rest| rest[0] == '\'').saturating_add(1).min(text.len()),
        // Otherwise a lifetime.
        '\'' if text.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

/// The first place from `at` where `is_end` holds for the rest; the end of the text if none.
fn find(text: &[char], at: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (at..text.len()).find(|&i| is_end(&text[i..])).unwrap_or(text.len())
}

fn block_comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < text.len() {
        match (text[i], text.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

fn string_end(text: &[char], mut at: usize) -> usize {
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// `r"..."` and `r#"..."#`; `at` itself if it is another word or a raw name (`r#type`).
fn raw_string_end(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&'"') {
        return at;
    }
    let is_end = |rest: &[char]| rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&c| c == '#');
    find(text, open + 1, is_end).saturating_add(1 + hashes).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_no_code() {
        #[track_caller]
        fn check(source: &str, code: &str) {
            let found = code_only(source);
            assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), code, "of {source}");
            assert_eq!(found.matches('\n').count(), source.matches('\n').count());
            assert_eq!(found.chars().count(), source.chars().count());
        }
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check(r#"a("b \" c"); d"#, "a( ); d");
        check(r##"a(r#"b " c"#, br"\"); d"##, "a( , b ); d");
        check(r"a('{', '\'', '\u{7d}', b'\\'); fn f<'a>(x: &'a str)", "a( , , , b ); fn f<'a>(x: &'a str)");
        check("r#type = \"x\nunsafe", "r#type =");
        check("for r in var", "for r in var");
    }

    #[test]
    fn functions_end_where_their_braces_do() {
        let code = "fn a();\nfn b(x: [u8; 3]) -> u8 {\n  if x { y }\n}\nlet f: fn(u8) = b;\nfn c() { fn d() {\n} }";
        let found: Vec<_> = functions(code).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("b".into(), 2, 3), ("c".into(), 6, 2), ("d".into(), 6, 2)]);
    }

    #[test]
    fn a_word_is_not_a_part_of_another() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert!(has_word("x; println!()", "println!"));
        assert!(!has_word("eprintln!()", "println!"));
    }
}
