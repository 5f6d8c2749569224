//! The words and sentence forms of English word problems. The last form of each list is held out for evaluation.

mod going;
mod keeping;

use super::Forms;

/// A theme of English problems.
pub(crate) struct EnglishTheme {
    pub(crate) weight: u32,
    /// Empty: people.
    pub(crate) names: &'static [(&'static str, bool)],
    pub(crate) things: &'static [(&'static str, &'static str)],
    pub(crate) containers: &'static [(&'static str, &'static str)],
    pub(crate) forms: Forms,
}

/// Names and whether they are women's.
pub(crate) const NAMES_ENGLISH: &[(&str, bool)] = &[
    ("Mia", true),
    ("Ben", false),
    ("Sara", true),
    ("Tom", false),
    ("Lily", true),
    ("Sam", false),
    ("Anna", true),
    ("Leo", false),
    ("Nora", true),
    ("Max", false),
    ("Ella", true),
    ("Jack", false),
    ("Rosa", true),
    ("Omar", false),
    ("Zoe", true),
    ("Adam", false),
    ("Lina", true),
    ("Noah", false),
    ("Maya", true),
    ("Finn", false),
    ("Ruth", true),
    ("Carl", false),
    ("Ivy", true),
    ("Hugo", false),
    ("Dina", true),
    ("Paul", false),
    ("Kate", true),
    ("Amir", false),
    ("June", true),
    ("Eric", false),
    ("Hana", true),
    ("Oscar", false),
    ("Layla", true),
    ("Peter", false),
];

/// The themes, with how often each is chosen.
pub(crate) const ENGLISH_THEMES: &[EnglishTheme] =
    &[keeping::THINGS, keeping::PAGES, keeping::COINS, going::BUSES, going::HARVESTS, going::WALKS];
