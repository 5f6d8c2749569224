//! The bounds that the tests use are those that `docs/NUMERICS.md` promises.

mod common;

use common::tolerance::{ALL, Bound, TRAINING};

const DOCUMENT: &str = include_str!("../../../docs/NUMERICS.md");

#[test]
fn the_documents_tables_have_the_bounds_of_the_tests() {
    compare("| kernel |", &ALL);
    compare("| training kernel |", &TRAINING);
}

fn compare(header: &str, bounds: &[Bound]) {
    let rows: Vec<&str> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with(header))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = bounds.iter().map(|bound| bound.row()).collect();
    assert_eq!(rows, expected);
}
