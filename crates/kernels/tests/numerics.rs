//! The bounds that the tests use are those that `docs/NUMERICS.md` promises.

mod common;

use common::tolerance::ALL;

const DOCUMENT: &str = include_str!("../../../docs/NUMERICS.md");

#[test]
fn the_documents_table_has_the_bounds_of_the_tests() {
    let rows: Vec<&str> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| kernel | units of 2^-24 |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = ALL.iter().map(|bound| bound.row()).collect();
    assert_eq!(rows, expected);
}
