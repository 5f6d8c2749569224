//! `fathom bench`: what is measured is what was asked for, and what cannot be measured is said.

use crate::harness::{command, fathom, finish, model};

#[test]
fn every_combination_is_measured_and_is_below_what_no_machine_can_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let plot = directory.path().join("speed.svg");
    let plot = plot.to_str().expect("UTF-8");
    let arguments = ["bench", model(), "--prompt", "5,300", "--depth", "64,0", "--batch", "1,2", "--threads", "1,2"];
    let more = ["--seconds", "0.01", "--cache", "int8", "--json", "--plot", plot];
    let json = fathom(&[&arguments[..], &more].concat()).json();
    assert_eq!((&json["family"], &json["cache"]), (&"DeepSeek-V3".into(), &"int8".into()));
    assert_eq!(json["limits"].as_array().expect("a list").len(), 2);
    let lines = json["lines"].as_array().expect("a list");
    assert_eq!(lines.len(), 4 * 2 * 2);
    for line in lines {
        let number = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"));
        let best = line["tokens_per_s"]["best"].as_f64().expect("a number");
        let share = number("share_of_limit");
        assert!(best > 0.0 && (share - best / number("limit_tokens_per_s")).abs() < 1e-9, "{line}");
        // Each token multiplies with some thousand weights at least, and reads its own row of the cache.
        assert!(number("operations_per_token") > 1e4 && number("bytes_per_token") > 80.0, "{line}");
    }
    let of = |kind: &str, depth: u64, sequences: u64, tokens: u64| {
        let wanted = [("depth", depth), ("sequences", sequences), ("tokens", tokens), ("threads", 1)];
        lines.iter().find(|l| l["kind"] == kind && wanted.iter().all(|&(k, v)| l[k] == v)).expect("the line")
    };
    let number = |line: &serde_json::Value, name: &str| line[name].as_f64().expect("a number");
    let (shallow, deep) = (of("decode", 0, 1, 1), of("decode", 64, 1, 1));
    // 64 rows more are read of two layers: 40 elements and one scale each.
    assert_eq!(number(deep, "bytes_per_token") - number(shallow, "bytes_per_token"), 64.0 * 2.0 * 44.0);
    // Two sequences share the weights.
    assert!(number(of("decode", 0, 2, 1), "bytes_per_token") < number(shallow, "bytes_per_token"));
    assert!(number(of("prompt", 0, 1, 300), "bytes_per_token") < number(of("prompt", 0, 1, 5), "bytes_per_token"));
    let drawing = std::fs::read_to_string(plot).expect("the drawing");
    assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
    assert_eq!(drawing.matches("<circle ").count(), 16);
    assert!(!drawing.contains("href") && !drawing.contains("<script"), "nothing outside is needed");
}

#[test]
fn the_table_has_a_row_for_each_line() {
    let mut bench = command(&["bench", model(), "--prompt", "0", "--depth", "0,100", "--seconds", "0.01"]);
    bench.env("FATHOM_THREADS", "2");
    let text = finish(bench, "").ok();
    assert!(text.contains("first two processors: ") && text.contains("limits with 2 threads: read "), "{text}");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("decode ")).collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.ends_with('%') && row.len() <= 100), "{text}");
    assert!(!text.contains("prompt of"), "{text}");
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is() {
    let refusal = |arguments: &[&str]| fathom(&[&["bench", model()], arguments].concat()).refusal();
    assert_eq!(refusal(&["--threads", "0"]), "--threads is 0; it must be between 1 and 1024");
    assert_eq!(refusal(&["--threads", "1,1025"]), "--threads is 1025; it must be between 1 and 1024");
    assert_eq!(
        refusal(&["--depth", "16000", "--prompt", "385"]),
        "385 tokens at depth 16000 are more than the 16384 that the model was made for"
    );
    assert_eq!(
        refusal(&["--depth", "18446744073709551615"]),
        "512 tokens at depth 18446744073709551615 are more than the 16384 that the model was made for"
    );
    assert_eq!(
        refusal(&["--prompt", "0", "--batch", "0"]),
        "--prompt and --batch are both 0; there is nothing to measure"
    );
    for seconds in ["0", "-1", "NaN", "1e9"] {
        let seconds = format!("--seconds={seconds}");
        assert!(refusal(&[&seconds]).ends_with("it must be more than 0 and at most 3600"), "{seconds}");
    }
    assert!(refusal(&["--batch", "18446744073709551615"]).contains("GiB of memory are free; a smaller --depth"));
    assert!(refusal(&["--prompt", "some"]).contains("'some'"));
    let nowhere = "no/such/speed.svg";
    assert_eq!(refusal(&["--plot", nowhere]), format!("{nowhere}: cannot be written: there is no such directory"));
    let message = "there is no such file or directory, and no pulled model of that name (`fathom list`)";
    assert_eq!(fathom(&["bench", "nowhere"]).refusal(), format!("nowhere: {message}"));
}
