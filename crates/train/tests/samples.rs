//! Samples of a model on generated problems: the same file whatever runs at once and wherever the work stops, and
//! lines that fine-tuning reads.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::Site;
use eval::Split;
use eval::task::Task;
use kernels::attention::CacheFormat;
use kernels::pool::Pool;
use model::load::Model;
use serde_json::Value;
use text::{ChatTemplate, Tokenizer};
use train::samples::{Keep, Machine, Manifest, SampleError, Settings, Teacher, sample};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fathom/tests/fixtures/tiny-chat")
}

fn settings(keep: Keep) -> Settings {
    Settings {
        tasks: vec!["compare".into(), "words_ar".into()],
        problems: 9,
        per_problem: 3,
        keep,
        kept_max: 0,
        language_share_min: 0.0,
        instruct: false,
        seed: 4,
        temperature: 0.9,
        top_p: 1.0,
        max_tokens: 24,
        variables: Default::default(),
        arithmetic: "exact".into(),
    }
}

/// Samples to `out`; stops after so many samples.
fn run(s: &Settings, threads: usize, at_once: usize, out: &Path, stop_at: u64) -> Result<Manifest, SampleError> {
    let (model, tokenizer) = (Model::open(&folder()).unwrap(), Tokenizer::from_directory(&folder()).unwrap());
    let template = ChatTemplate::parse(tokenizer.chat_template(None).unwrap()).unwrap();
    let teacher = Teacher { path: &folder(), model: &model, tokenizer: &tokenizer, template: &template };
    let pool = Pool::new(threads);
    let machine = Machine { pool: &pool, at_once, cache: CacheFormat::F32 };
    sample(&teacher, s, &machine, out, &mut |done, all, _| {
        assert!(done <= all && all == 54);
        done < stop_at
    })
}

#[test]
fn the_file_depends_on_the_settings_alone() {
    let site = tempfile::tempdir().unwrap();
    let path = |name: &str| site.path().join(name);
    let s = settings(Keep::All);
    let manifest = run(&s, 2, 4, &path("whole.jsonl"), u64::MAX).unwrap();
    let whole = std::fs::read_to_string(path("whole.jsonl")).unwrap();
    assert_eq!(run(&s, 1, 64, &path("other.jsonl"), u64::MAX).unwrap(), manifest);
    assert_eq!(std::fs::read_to_string(path("other.jsonl")).unwrap(), whole);

    // Stopped twice, the second time with bytes behind the last saved ones, as a kill leaves them.
    let parts = path("parts.jsonl");
    for stop_at in [20, 44] {
        assert!(matches!(run(&s, 2, 3, &parts, stop_at), Err(SampleError::Stopped)));
        assert!(!parts.exists());
        let mut lines = std::fs::OpenOptions::new().append(true).open(path("parts.jsonl.part")).unwrap();
        std::io::Write::write_all(&mut lines, b"{\"messages\": [half of a line").unwrap();
    }
    let changed = run(&Settings { seed: 5, ..s.clone() }, 1, 4, &parts, u64::MAX).unwrap_err().to_string();
    assert!(changed.contains("other settings"), "{changed}");
    assert_eq!(run(&s, 2, 5, &parts, u64::MAX).unwrap(), manifest);
    assert_eq!(std::fs::read_to_string(&parts).unwrap(), whole);
    let there = run(&s, 2, 5, &parts, u64::MAX).unwrap_err().to_string();
    assert!(there.contains("is there already"), "{there}");
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), 6, "three files with their manifests, nothing else");

    // Every line is counted, and asks what reinforcement learning may ask.
    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (kept, samples) = manifest.counts.values().fold((0, 0), |(k, s), c| (k + c.kept, s + c.samples));
    assert_eq!((lines.len() as u64, samples), (kept, 54));
    for counts in manifest.counts.values() {
        let others = counts.cut_off + counts.unfinished + counts.repeated;
        assert_eq!(counts.samples, counts.kept + others, "{counts:?}");
    }
    assert!(kept > 10, "{kept}");
    let may: BTreeSet<String> = ["compare", "words_ar"]
        .into_iter()
        .flat_map(|name| Task::of_name(name).unwrap().problems(4, 9, Split::Reinforce))
        .map(|problem| problem.question)
        .collect();
    assert!(lines.iter().all(|line| may.contains(line["messages"][0]["content"].as_str().unwrap())));
}

#[test]
fn what_is_not_right_is_not_kept_and_what_cannot_work_is_refused() {
    let site = tempfile::tempdir().unwrap();
    let out = site.path().join("right.jsonl");
    let manifest = run(&settings(Keep::Right), 2, 16, &out, u64::MAX).unwrap();
    for line in std::fs::read_to_string(&out).unwrap().lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["correct"], true, "{line}");
    }
    assert!(manifest.counts.values().all(|c| c.kept + c.repeated == c.right && c.problems == 9), "{manifest:?}");
    let refused = |change: fn(&mut Settings)| {
        let mut s = settings(Keep::Right);
        change(&mut s);
        run(&s, 1, 1, &site.path().join("no.jsonl"), u64::MAX).unwrap_err().to_string()
    };
    assert!(refused(|s| s.tasks[0] = "gsm8k".into()).contains("\"gsm8k\"; it must be one of arithmetic"));
    assert!(refused(|s| s.tasks[0] = "words_ar".into()).contains("named once"));
    assert!(refused(|s| s.tasks.clear()).contains("at least one task"));
    assert!(refused(|s| s.per_problem = 0).contains("per-problem is 0"));
    assert!(refused(|s| s.language_share_min = f64::NAN).contains("between 0 and 1"));
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), 2, "a refusal writes nothing");
}

#[test]
fn fine_tuning_reads_what_was_kept() {
    let site = Site::new();
    run(&settings(Keep::All), 2, 16, &site.path("all.jsonl"), u64::MAX).unwrap();
    let recipe = site.recipe(&[
        ("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", "chat = [\"all.jsonl\"]"),
        ("near_duplicates = false\ntokens = 4000", "tokens = 99999"),
        ("= 10\n\n[[", "= 2\n\n[["),
    ]);
    let data = site.data(&recipe);
    let entry = &data.manifest.sources[0];
    assert!(entry.broken == 0 && entry.documents > 5, "{entry:?}");
}
