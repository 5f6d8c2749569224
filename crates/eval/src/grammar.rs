//! Templates that become varied text: alternatives, variables, and agreement with a person's gender.
//!
//! `[a|b|c]` is one of the alternatives (they nest), `{name}` a variable, `<he/she>` agrees with the first person of
//! the text and `<B:he/she>` with the one called `B`.

use crate::rng::Rng;

/// The variables of a text.
#[derive(Clone, Debug, Default)]
pub struct Cast {
    words: Vec<(&'static str, String)>,
    female: Vec<(char, bool)>,
}

impl Cast {
    /// Names a variable; a later value replaces an earlier one.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) -> &mut Cast {
        let value = value.into();
        match self.words.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.words.push((name, value)),
        }
        self
    }

    /// Says whether the person called `person` (`A` is the first) is female.
    pub fn set_female(&mut self, person: char, female: bool) -> &mut Cast {
        self.female.retain(|(known, _)| *known != person);
        self.female.push((person, female));
        self
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.words.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The text of a template. What is no template (an unknown variable, a bracket without its partner) stays as it
    /// is, where tests find it.
    pub fn expand(&self, template: &str, rng: &mut Rng) -> String {
        let mut out = String::with_capacity(template.len() + 32);
        self.expand_into(template, rng, &mut out);
        out
    }

    fn expand_into(&self, template: &str, rng: &mut Rng, out: &mut String) {
        let mut rest = template;
        while let Some(at) = rest.find(['[', '{', '<']) {
            out.push_str(&rest[..at]);
            let part = &rest[at..];
            let Some(length) = closing(part) else {
                out.push_str(part);
                return;
            };
            let inside = &part[1..length - 1];
            match part.as_bytes()[0] {
                b'[' => {
                    let options = alternatives(inside);
                    let chosen = options[rng.below(options.len())];
                    self.expand_into(chosen, rng, out);
                }
                b'{' => match self.get(inside) {
                    Some(value) => out.push_str(value),
                    None => out.push_str(&part[..length]),
                },
                _ => self.agree(inside, rng, out),
            }
            rest = &part[length..];
        }
        out.push_str(rest);
    }

    fn agree(&self, inside: &str, rng: &mut Rng, out: &mut String) {
        let mut letters = inside.chars();
        let (person, forms) = match (letters.next(), letters.next()) {
            (Some(person), Some(':')) => (person, &inside[person.len_utf8() + 1..]),
            _ => ('A', inside),
        };
        let female = self.female.iter().find(|(known, _)| *known == person).is_some_and(|(_, female)| *female);
        match forms.split_once('/') {
            Some((masculine, feminine)) => self.expand_into(if female { feminine } else { masculine }, rng, out),
            None => out.push_str(inside),
        }
    }
}

/// The length of the bracketed part at the beginning of `part`.
fn closing(part: &str) -> Option<usize> {
    let (open, close) = match part.as_bytes().first()? {
        b'[' => (b'[', b']'),
        b'{' => (b'{', b'}'),
        _ => (b'<', b'>'),
    };
    let mut depth = 0usize;
    for (at, &byte) in part.as_bytes().iter().enumerate() {
        if byte == open {
            depth += 1;
        } else if byte == close {
            depth -= 1;
            if depth == 0 {
                return Some(at + 1);
            }
        }
    }
    None
}

/// The parts between `|` signs that are not in inner brackets.
fn alternatives(inside: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0usize, 0);
    let mut parts = Vec::new();
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    parts
}

/// The text with its first letter in upper case.
pub fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let mut cast = Cast::default();
        cast.set("name", "Mia").set_female('A', true).set_female('B', false);
        let text = |template: &str| cast.expand(template, &mut Rng::new(0, "test", 0));
        assert_eq!(text("{name} and <his/her> <B:brother/sister>"), "Mia and her brother");
        assert_eq!(text("[[{name}]] <a/b[c]>"), "Mia bc");
        assert_eq!(text("{unknown} ["), "{unknown} [");
        assert_eq!(text("<ذهب/ذهبت>"), "ذهبت");
        let seen: std::collections::BTreeSet<String> =
            (0..60).map(|i| cast.expand("[a|b[c|d]]", &mut Rng::new(0, "test", i))).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "bc", "bd"]);
    }

    #[test]
    fn capitals() {
        assert_eq!(capitalised("émile went"), "Émile went");
        assert_eq!(capitalised(""), "");
    }
}
