//! Training from the command line: mistakes, kills, the way from a recipe to an answer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{command, fathom, file, finish, model};

/// A recipe for a model that trains in no time, and its text.
fn site(steps: u64) -> (tempfile::TempDir, String) {
    let root = tempfile::tempdir().expect("a directory");
    let words = ["the", "cat", "sat", "on", "a", "mat", "and", "ran", "home", "to", "eat", "fish"];
    let line = |i: usize| (0..6 + i % 9).map(|k| words[(i * 7 + k * k) % 12]).collect::<Vec<_>>().join(" ");
    let text: String = (0..200).map(|i| format!("{} {i}.\n\n", line(i))).collect();
    file(root.path(), "stories.txt", &text);
    let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-chat");
    let config = std::fs::read_to_string(Path::new(tokenizer).join("config.json")).expect("the model");
    let config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&config).expect("JSON");
    let known = config.iter().filter(|(_, value)| !value.is_null());
    let model: String = known.map(|(key, value)| format!("{key} = {value}\n")).collect();
    let recipe = format!(
        "name = \"tiny\"\n[model]\n{model}q_lora_rank = 0\nnum_nextn_predict_layers = 1\n\
         [tokenizer]\nfolder = {tokenizer:?}\n[data]\nsequence = 32\nheld_out_one_in = 10\n\
         [[data.source]]\nname = \"stories\"\ntext = [\"stories.txt\"]\nsplit_at_blank_lines = true\n\
         near_duplicates = false\ntokens = 3000\nlicence = \"MIT\"\n\
         [train]\ntokens = {}\nbatch_tokens = 64\nmicro_batch_tokens = 64\nmtp_weight = [[0, 0.3]]\n\
         bias_speed = [[0, 0.01]]\n[schedule]\nwarmup_steps = 3\n[run]\nevaluate_every = 10\nevaluate_tokens = 64\n\
         checkpoint_every = 3\n",
        steps * 64
    );
    let recipe = file(root.path(), "tiny.toml", &recipe);
    (root, recipe)
}

fn changed(recipe: &str, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(recipe).expect("the recipe");
    assert!(text.contains(from), "{from}");
    let path = Path::new(recipe);
    file(path.parent().expect("a directory"), "changed.toml", &text.replacen(from, to, 1))
}

/// What must be equal at the end of a run.
fn result(run: &Path, steps: u64) -> [Vec<u8>; 2] {
    let folder = run.join(format!("checkpoints/step-{steps:08}"));
    ["masters.f32", "moments.f32"].map(|name| std::fs::read(folder.join(name)).expect("the last checkpoint"))
}

/// Kills of the ordinary test; `FATHOM_KILLS` asks for more.
fn kills() -> u64 {
    std::env::var("FATHOM_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let kills = kills();
    let steps = 20 + 2 * kills;
    let (root, recipe) = site(steps);
    let path = |name: &str| root.path().join(name);
    let train = |run: &PathBuf| command(&["train", "pretrain", &recipe, "--run", run.to_str().expect("UTF-8")]);
    let whole = path("whole");
    finish(train(&whole), "").ok();
    let begun = Instant::now();
    finish(train(&path("timed")), "").ok();
    let all = begun.elapsed();

    // Between nothing and twice what each start would need if all did the same; seeded, but the system's pace decides
    // where a kill falls: while data is prepared, in a step, in a save.
    let run = path("killed");
    let mut state = 1u64;
    let (mut killed, mut starts, mut pace) = (0, 0, all);
    while killed < kills {
        starts += 1;
        assert!(starts <= 20 * kills, "{killed} of {starts} starts were still running when they were killed");
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let share = (state >> 40) as f64 / (1u64 << 24) as f64;
        let wait = pace.mul_f64(share * (0.3 + 2.0 / kills as f64));
        let mut process = train(&run);
        let mut child = process
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(wait.max(Duration::from_millis(1)));
        let running = child.try_wait().expect("a process").is_none();
        child.kill().expect("a signal");
        child.wait().expect("a process");
        killed += u64::from(running);
        if !running {
            // The machine has become faster since it was timed: begin again, and kill earlier.
            pace /= 2;
            std::fs::remove_dir_all(&run).expect("the run's folder");
        }
    }
    finish(train(&run), "").ok();
    assert_eq!(result(&run, steps), result(&whole, steps));
    let log = |run: &PathBuf| std::fs::read_to_string(run.join("log.jsonl")).expect("a log").lines().count() as u64;
    assert_eq!((log(&run), log(&whole)), (steps, steps));
    assert!(run.join("report.html").is_file());
}

#[test]
fn a_recipe_that_cannot_work_says_so_before_anything_is_written() {
    let (root, recipe) = site(10);
    let run = root.path().join("run");
    let run = run.to_str().expect("UTF-8");
    let refused = |from: &str, to: &str| {
        let recipe = changed(&recipe, from, to);
        fathom(&["train", "pretrain", &recipe, "--run", run]).refusal()
    };
    let line = refused("batch_tokens", "bach_tokens");
    assert!(line.contains("unknown field `bach_tokens`") && line.ends_with("did you mean `batch_tokens`?"), "{line}");
    let line = refused("hidden_size = 64", "hidden_size = 8000000");
    assert!(line.contains("GiB are free") || line.contains("limit"), "{line}");
    let line = refused("stories.txt", "nothing.txt");
    assert!(line.contains("nothing.txt: cannot be read"), "{line}");
    let line = refused("held_out_one_in = 10", "held_out_one_in = 1");
    assert!(line.contains("held_out_one_in"), "{line}");
    let line = fathom(&["train", "pretrain", "no-such.toml"]).refusal();
    assert!(line.starts_with("no-such.toml: cannot be read"), "{line}");
    let line = fathom(&["train", "sft", &recipe, "--run", run]).refusal();
    assert!(line.contains("fine-tuning begins with a model"), "{line}");
    let line = fathom(&["train", "pretrain", &recipe, "--stop-after", "soon"]).refusal();
    assert!(line.contains("such as 90m"), "{line}");
    assert!(!root.path().join("run/checkpoints").exists());
}

#[test]
fn from_a_recipe_to_an_answer() {
    let (root, recipe) = site(12);
    let path = |name: &str| root.path().join(name).to_str().expect("UTF-8").to_string();
    let (run, out, gguf) = (path("run"), path("model"), path("model.gguf"));
    let said = fathom(&["train", "pretrain", &recipe, "--run", &run, "--steps", "5"]).ok();
    assert!(said.contains("stopped at step 5 of 12"), "{said}");
    let said = fathom(&["train", "pretrain", &recipe, "--run", &run]).ok();
    assert!(said.contains("finished, 12 steps"), "{said}");
    let said = fathom(&["train", "export", &run, &out]).ok();
    assert!(said.contains("tiny after step 12"), "{said}");
    let answer = fathom(&["run", &out, "-p", "the cat", "-t", "0", "-n", "4"]).ok();
    assert!(!answer.is_empty());
    fathom(&["convert", &out, &gguf, "--to", "q8_0"]).ok();
    fathom(&["run", &gguf, "-p", "the cat", "-t", "0", "-n", "4"]).ok();
    fathom(&["report", &run, &run, "--out", &path("two.html")]).ok();
    let page = std::fs::read_to_string(path("two.html")).expect("a report");
    assert!(page.contains("<svg") && !page.contains("<script"));
    // Fine-tuning begins with what was trained, on chats; its model table is that of the weights.
    let chat = |i: usize| {
        format!(r#"{{"messages":[{{"role":"user","content":"q{i}"}},{{"role":"assistant","content":"a{i}"}}]}}"#)
    };
    file(root.path(), "chat.jsonl", &(0..80).map(|i| chat(i) + "\n").collect::<String>());
    let text = std::fs::read_to_string(&recipe).expect("the recipe");
    let (before, after) = (text.find("[model]").expect("a table"), text.find("[tokenizer]").expect("a table"));
    let tuned = format!("{}[init]\nfrom = \"model\"\n{}", &text[..before], &text[after..]);
    let tuned = tuned.replace("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", "chat = [\"chat.jsonl\"]");
    let tuned = file(root.path(), "sft.toml", &tuned);
    let said = fathom(&["train", "sft", &tuned, "--run", &path("sft")]).ok();
    assert!(said.contains("finished"), "{said}");
}

#[test]
fn samples_adapters_and_a_teacher() {
    let (root, recipe) = site(4);
    let path = |name: &str| root.path().join(name).to_str().expect("UTF-8").to_string();
    let sampled = ["--tasks", "compare,words", "--problems", "12", "--keep", "all", "-n", "24", "--out"];
    let sample = |out: &str| fathom(&[&["sample", model()], &sampled[..], &[out]].concat());
    let table = sample(&path("all.jsonl")).ok();
    assert!(table.contains("compare") && table.contains("12"), "{table}");
    let again = sample(&path("all.jsonl")).refusal();
    assert!(again.contains("is there already"), "{again}");
    let unknown = fathom(&["sample", model(), "--tasks", "gsm8k", "--out", &path("no.jsonl")]).refusal();
    assert!(unknown.contains("one of arithmetic"), "{unknown}");

    // Adapters on the model that answered, learning its own answers; merged, it answers again.
    let text = std::fs::read_to_string(&recipe).expect("the recipe");
    let (before, after) = (text.find("[model]").expect("a table"), text.find("[tokenizer]").expect("a table"));
    let text = format!("{}INIT\n{}", &text[..before], &text[after..]);
    let text = text.replace("mtp_weight = [[0, 0.3]]\nbias_speed = [[0, 0.01]]\n", "");
    let chats = "chat = [\"all.jsonl\"]";
    let text = text.replace("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", chats);
    let text = text.replace("held_out_one_in = 10", "held_out_one_in = 3");
    let init = format!("[init]\nfrom = {:?}\n[lora]\nrank = 2\n[optimizer]\nkind = \"adamw\"\nlr = 1e-3", model());
    let tuned = file(root.path(), "lora.toml", &text.replace("INIT", &init));
    let said = fathom(&["train", "sft", &tuned, "--run", &path("lora")]).ok();
    assert!(said.contains("finished"), "{said}");
    fathom(&["train", "export", &path("lora"), &path("merged")]).ok();
    fathom(&["run", &path("merged"), "-p", "the cat", "-t", "0", "-n", "4"]).ok();

    // A student from noise learns the model's distributions.
    let missing = fathom(&["train", "distill", &tuned, "--run", &path("no")]).refusal();
    assert!(missing.contains("nobody to learn from"), "{missing}");
    let student = std::fs::read_to_string(&recipe)
        .expect("the recipe")
        .replace("[tokenizer]", &format!("[teacher]\nfrom = {:?}\n[tokenizer]", model()));
    let student = file(root.path(), "student.toml", &student);
    let said = fathom(&["train", "distill", &student, "--run", &path("student")]).ok();
    assert!(said.contains("finished, 4 steps"), "{said}");
}

#[test]
fn a_road_goes_from_a_base_by_samples_of_it_to_a_tuned_model() {
    let (root, recipe) = site(4);
    let text = std::fs::read_to_string(&recipe).expect("the recipe");
    let (before, after) = (text.find("[model]").expect("a table"), text.find("[tokenizer]").expect("a table"));
    let base = format!("{}[init]\nfrom = {:?}\n{}", &text[..before], model(), &text[after..]);
    let base = base.replace("mtp_weight = [[0, 0.3]]\nbias_speed = [[0, 0.01]]\n", "");
    file(root.path(), "base.toml", &base);
    let chats = base.replace("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", "chat = [\"nowhere.jsonl\"]");
    // The road says which model a stage begins with; the one that the recipe names need not be there.
    let chats = chats.replace(&format!("from = {:?}", model()), "from = \"nowhere\"");
    file(root.path(), "tuned.toml", &chats.replace("held_out_one_in = 10", "held_out_one_in = 3"));
    let road = file(
        root.path(),
        "road.toml",
        "[[stage]]\nname = \"base\"\nkind = \"pretrain\"\nrecipe = \"base.toml\"\n\
         [[stage]]\nname = \"said\"\nkind = \"sample\"\nfrom = \"base\"\n\
         options = \"--tasks compare,words --problems 12 --keep all -n 24\"\n\
         [[stage]]\nname = \"tuned\"\nkind = \"sft\"\nrecipe = \"tuned.toml\"\nfrom = \"base\"\nchats = \"said\"\n",
    );
    let folder = root.path().join("out");
    let walk = || fathom(&["train", "road", &road, "--folder", folder.to_str().expect("UTF-8")]);
    let said = walk().ok();
    assert!(said.contains("said.jsonl") && said.contains("tuned-model"), "{said}");
    let learned = std::fs::read_to_string(folder.join("tuned-model/manifest.json")).expect("a manifest");
    assert!(learned.contains("stories"), "{learned}");
    let weights = || std::fs::read(folder.join("tuned-model/model.safetensors")).expect("weights");
    let first = weights();
    std::fs::remove_dir_all(folder.join("tuned-model")).expect("the model");
    let again = walk().ok();
    assert!(!again.contains("said.jsonl") && again.contains("tuned-model"), "{again}");
    assert_eq!(weights(), first);
}
