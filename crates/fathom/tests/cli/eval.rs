//! `eval`: the same figures in any batch, files of problems, and what it refuses.

use crate::harness::{fathom, model};

fn eval(more: &[&str]) -> crate::harness::Said {
    fathom(&[&["eval", model(), "--problems", "6", "--max-tokens", "12"], more].concat())
}

#[test]
fn figures_do_not_depend_on_what_is_computed_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name).to_str().expect("a name").to_string();
    let (kept, plot) = (file("samples.jsonl"), file("plot.svg"));
    let figures = |more: &[&str]| {
        let more = [&["--tasks", "arithmetic,words_ar", "--samples", "2", "--json"], more].concat();
        let mut all = eval(&more).json();
        all["seconds"] = 0.into();
        all
    };
    let one = figures(&["--at-once", "1", "--keep", &kept, "--plot", &plot]);
    assert_eq!(one, figures(&["--at-once", "5"]));
    let other = figures(&["--seed", "1"]);
    assert_eq!((&one["seed"], &other["seed"]), (&0.into(), &1.into()));
    let tasks = one["tasks"].as_array().expect("figures");
    // Six problems: one of each level, and all together.
    assert_eq!(tasks.iter().filter(|task| task["task"] == "arithmetic").count(), 7, "{one}");
    assert!(tasks.iter().all(|task| task["samples"] == 2));
    let lines = std::fs::read_to_string(&kept).expect("samples");
    assert_eq!(lines.lines().count(), 24);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert!(first["question"].as_str().is_some_and(|question| !question.is_empty()), "{first}");
    assert!(std::fs::read_to_string(&plot).expect("a plot").starts_with("<svg"));
}

#[test]
fn problems_from_a_file_and_a_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("gsm.jsonl");
    std::fs::write(&path, "{\"question\":\"How many?\",\"answer\":\"#### 3\"}\n").expect("written");
    let path = path.to_str().expect("a name");
    let table = eval(&["--tasks", "gsm8k", "--data", path, "--instruct"]).ok();
    assert!(table.starts_with("task") && table.lines().nth(1).is_some_and(|line| line.starts_with("gsm8k")), "{table}");
    let text = ["--tasks", "none", "--text", path];
    let said = eval(&text).ok();
    let figures = eval(&[&text[..], &["--json"]].concat()).json();
    let bits = figures["text"]["bits_per_byte"].as_f64().expect("a number");
    assert!(bits > 0.0 && said.starts_with(&format!("{bits:.4} bits per byte")), "{said} {figures}");
    std::fs::write(path, "{\"question\":\"How many?\"}\n").expect("written");
    assert!(eval(&["--tasks", "gsm8k", "--data", path]).refusal().contains("entry 1"));
}

#[test]
fn what_cannot_be_measured_says_so() {
    assert!(eval(&["--tasks", "chess"]).refusal().contains("countdown3"));
    assert!(eval(&["--tasks", "gsm8k"]).refusal().contains("--data"));
    assert!(eval(&["--samples", "0"]).refusal().contains("--samples is 0"));
    assert!(eval(&["--at-once", "9999999"]).refusal().contains("from 1 to 4096"));
    assert!(eval(&["--temperature", "11"]).refusal().contains("temperature"));
    assert!(eval(&["--context", "4"]).refusal().contains("nothing is left for an answer"));
}
