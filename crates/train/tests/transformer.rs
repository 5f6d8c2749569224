//! The loop with a real model: resumed as undisturbed, one thread as two, exported as trained.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Site, Told, timeless};
use kernels::pool::Pool;
use model::load::Model;
use train::export::{Finished, Storage, export};
use train::learner::{Learner, Transformer};
use train::pretrain::{Limits, pretrain};
use train::recipe::Recipe;
use train::report::{Reported, page};
use train::run::{End, checkpoint};

const STEPS: (&str, &str) = ("tokens = 5120", "tokens = 1536");

fn go(recipe: &Recipe, folder: &Path, threads: usize, until: Option<u64>) -> Told {
    let mut told = Told::default();
    let limits = Limits { until_step: until, ..Limits::default() };
    let stop = AtomicBool::new(false);
    let (_, end) = pretrain(recipe, folder, &Pool::new(threads), &limits, &stop, &mut told).unwrap();
    assert_eq!(end, if until.is_some() { End::Steps } else { End::Finished });
    told
}

fn weights(recipe: &Recipe, folder: &Path) -> Vec<Vec<f32>> {
    let (path, _) = checkpoint::newest(&folder.join("checkpoints"), &mut |text| panic!("{text}")).unwrap();
    checkpoint::masters(&path, &recipe.spec().unwrap().parameters()).unwrap()
}

#[test]
fn stops_and_threads_change_no_bit() {
    let site = Site::new();
    for precision in ["f32", "bf16", "fp8"] {
        let change = format!("micro_batch_tokens = 64\nprecision = \"{precision}\"");
        let recipe = site.recipe(&[STEPS, ("micro_batch_tokens = 64", &change)]);
        let (whole, parts) = (site.path(&format!("{precision}-whole")), site.path(&format!("{precision}-parts")));
        go(&recipe, &whole, 2, None);
        go(&recipe, &parts, 1, Some(1));
        go(&recipe, &parts, 2, Some(7));
        go(&recipe, &parts, 1, None);
        assert_eq!(weights(&recipe, &parts), weights(&recipe, &whole), "{precision}");
        assert_eq!(timeless(&parts), timeless(&whole), "{precision}");
        let log = timeless(&whole);
        assert!(log[11].loss < log[0].loss, "{} {}", log[0].loss, log[11].loss);
        assert!(log[0].mtp_loss.is_some_and(|loss| loss > 1.0));
        // Two layers with experts: the second of two, and that of multi-token prediction.
        assert_eq!(log[0].expert_load.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
    }
}

#[test]
fn a_run_can_be_made_longer_until_its_end_comes_in_sight() {
    let site = Site::new();
    // 12 steps, then 24: the rate falls over the last fifth, the prediction weight and the bias change at half.
    let (short, long) = ("tokens = 1536", "tokens = 3072");
    let (folder, whole) = (site.path("run"), site.path("whole"));
    let recipe = |tokens: &str| site.recipe(&[("tokens = 5120", tokens), ("[0.9, 0]", "[0.5, 0]")]);
    // The bias would change at the same step.
    let later = |tokens: &str| site.recipe(&[("tokens = 5120", tokens), ("[0.9, 0]", "[0.25, 0]")]);
    go(&recipe(short), &site.path("later"), 2, Some(5));
    go(&later(long), &site.path("later"), 2, None);
    go(&recipe(short), &folder, 2, Some(5));
    go(&recipe(long), &folder, 2, Some(9));
    go(&recipe(long), &folder, 2, None);
    go(&recipe(long), &whole, 2, None);
    assert_eq!(weights(&recipe(long), &folder), weights(&recipe(long), &whole));
    // Past the half of the short run it is too late to make it short again.
    let folder = site.path("late");
    go(&recipe(long), &folder, 2, Some(8));
    let refused = |recipe: Recipe| {
        let (limits, stop) = (Limits::default(), AtomicBool::new(false));
        let ended = pretrain(&recipe, &folder, &Pool::new(1), &limits, &stop, &mut Told::default());
        ended.unwrap_err().to_string()
    };
    let message = refused(recipe(short));
    assert!(message.contains("begun with another recipe"), "{message}");
    assert!(refused(site.recipe(&[("lr = 0.01", "lr = 0.02")])).contains("begun with another recipe"));
    // A refusal leaves the run's own recipe in place.
    go(&recipe(long), &folder, 2, None);
}

#[test]
fn routers_are_balanced_by_rule_only_while_they_should_be() {
    let site = Site::new();
    let recipe = site.recipe(&[STEPS, ("[[0, 0.01], [0.9, 0]]", "[[0, 0.01], [0.5, 0]]")]);
    let folder = site.path("run");
    let biases = |until| {
        go(&recipe, &folder, 2, until);
        let parameters = recipe.spec().unwrap().parameters();
        let own = |i: &usize| parameters[*i].slot.part == model::parameters::Part::RouterCorrection;
        let all = weights(&recipe, &folder);
        (0..parameters.len()).filter(own).map(|i| all[i].clone()).collect::<Vec<_>>()
    };
    let (early, middle, end) = (biases(Some(2)), biases(Some(6)), biases(None));
    assert_eq!(early.len(), 2);
    assert!(early.iter().flatten().any(|b| *b != 0.0));
    assert_ne!(early, middle);
    assert_eq!(middle, end, "frozen");
    assert!(end.iter().all(|bias| bias.iter().sum::<f32>().abs() < 1e-6));
}

#[test]
fn what_is_exported_opens_with_the_logits_of_the_trained_model() {
    let site = Site::new();
    let recipe = site.recipe(&[STEPS]);
    let folder = site.path("run");
    go(&recipe, &folder, 2, Some(6));
    for (storage, name) in [(Storage::Bf16, "bf16"), (Storage::F32, "f32")] {
        let out = site.path(name);
        export(&folder, &out, storage, &mut |text| panic!("{text}")).unwrap();
        let opened = Model::open(&out).unwrap();
        assert_eq!(opened.spec, recipe.spec().unwrap());

        // The trained model, its weights rounded as the export's.
        let pool = Pool::new(2);
        let words = if storage == Storage::Bf16 { "bf16" } else { "f32" };
        let change = format!("micro_batch_tokens = 64\nprecision = \"{words}\"");
        let same = site.recipe(&[STEPS, ("micro_batch_tokens = 64", &change)]);
        let mut trained = Transformer::new(&same, same.spec().unwrap(), &pool).unwrap();
        let masters = weights(&recipe, &folder);
        trained.masters_mut().clone_from_slice(&masters);
        trained.refresh(&pool);
        let tokens = [3, 50, 7, 201, 9, 9, 120];
        let (ours, theirs) = (common::logits(&opened, &pool, &tokens), common::logits(trained.model(), &pool, &tokens));
        let largest = theirs.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        let off = ours.iter().zip(&theirs).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        // Training in bf16 also rounds what goes into products; in f32 only the order of sums differs.
        let bound = if storage == Storage::Bf16 { 0.05 } else { 1e-5 };
        assert!(off <= bound * largest, "{name}: {off} of {largest}");

        let card = std::fs::read_to_string(out.join("README.md")).unwrap();
        assert!(card.contains("| stories | MIT |") && card.contains("| tokens | 768 |"), "{card}");
        let readers = |name: &str| std::fs::metadata(out.join(name)).unwrap().permissions();
        assert_eq!(readers("model.safetensors"), readers("config.json"));
        let manifest = std::fs::read_to_string(out.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let hash = manifest["sources"][0]["text_sha256"].as_str().unwrap();
        assert!(hash.len() == 64 && card.contains(&format!("| {hash} |")), "{card}");
        assert!(text::Tokenizer::from_directory(&out).unwrap().chat_template(None).is_some());
        let again = export(&folder, &out, storage, &mut |text| panic!("{text}")).err().unwrap().to_string();
        assert!(again.contains("it is there already"), "{again}");
    }
    // A run may begin with these weights.
    let from = "tokens = 1536\"".replace('"', "");
    let change = format!("[init]\nfrom = \"{}\"\n\n[tokenizer]", site.path("f32").display());
    let tuned = site.recipe(&[("tokens = 5120", &from), ("[tokenizer]", &change)]);
    let begun = Transformer::new(&tuned, tuned.spec().unwrap(), &Pool::new(1)).unwrap();
    assert_eq!(begun.masters(), weights(&recipe, &folder));
    // Its card says what those had learned from, too.
    go(&tuned, &site.path("tuned"), 2, None);
    export(&site.path("tuned"), &site.path("again"), Storage::F32, &mut |text| panic!("{text}")).unwrap();
    let read = |file: &str| std::fs::read_to_string(site.path("again").join(file)).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&read("manifest.json")).unwrap();
    let first: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(site.path("f32").join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["before"], first);
    let (card, hash) = (read("README.md"), first["sources"][0]["text_sha256"].as_str().unwrap());
    let (own, before) = card.split_once("## The model that this training began with").expect("two models");
    assert!(own.contains("## Data") && before.contains("#### Data") && before.contains(hash), "{card}");
}

#[test]
fn a_report_has_its_plots_and_no_script() {
    let site = Site::new();
    let recipe = site.recipe(&[STEPS, ("licence = \"MIT\"", "licence = \"<script>alert(1)</script>\"")]);
    go(&recipe, &site.path("one"), 2, None);
    go(&recipe, &site.path("two"), 2, Some(6));
    let read = |name: &str| Reported::read(&site.path(name), &mut |text| panic!("{text}")).unwrap();
    let page = page(&[read("one"), read("two")]).unwrap();
    assert_eq!(page.matches("<figure>").count(), 9, "seven plots and two heat maps");
    let foreign = ["<script", "src=", "href", "NaN", "inf"];
    assert!(foreign.iter().all(|part| !page.contains(part)), "{page}");
    assert!(page.contains("one and two") && page.contains("bits a byte") && page.contains("one, held out"));
    assert!(page.contains("&lt;script&gt;"), "a licence is text");
    let finished = Finished::read(&site.path("one"), &mut |_| {}).unwrap();
    assert_eq!(finished.bill().unwrap().tokens, 1536);
}

#[test]
fn a_model_too_large_for_the_memory_is_refused_with_what_would_help() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let plan = train::memory::MemoryPlan::of(&recipe, &recipe.spec().unwrap());
    assert!(plan.check(Some(plan.total())).is_ok() && plan.check(None).is_ok());
    let message = plan.check(Some(plan.total() - 1)).unwrap_err().to_string();
    assert!(message.contains("are free") && message.contains("takes less"), "{message}");
}
