//! The recipes of the repository: they are read, and those that are to be compared differ in nothing else.

mod common;

use std::path::Path;

use kernels::pool::Pool;
use train::memory::MemoryPlan;
use train::recipe::Recipe;
use train::trial::trial;

fn recipe(name: &str) -> Recipe {
    Recipe::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name)).unwrap()
}

#[test]
fn the_dense_sibling_differs_from_the_built_in_model_in_its_experts_alone() {
    let (nano, dense) = (recipe("nano-pretrain.toml"), recipe("nano-dense.toml"));
    let (ours, theirs) = (nano.spec().unwrap().counts(), dense.spec().unwrap().counts());
    let off = (ours.active as f64 - theirs.active as f64).abs() / ours.active as f64;
    assert!(off < 0.01, "{} and {} active parameters", ours.active, theirs.active);
    assert!(theirs.total < ours.total / 2 && theirs.mtp == 0);
    let mut same = nano.clone();
    same.name.clone_from(&dense.name);
    for key in ["intermediate_size", "first_k_dense_replace", "num_nextn_predict_layers"] {
        same.model.insert(key.to_string(), dense.model[key].clone());
    }
    (same.train.mtp_weight, same.train.bias_speed, same.train.balance_alpha) = (Vec::new(), Vec::new(), 0.0);
    assert_eq!(same.fingerprint_text(), dense.fingerprint_text());
    assert_eq!(serde_json::to_string(&same.run).unwrap(), serde_json::to_string(&dense.run).unwrap());
}

#[test]
fn adapters_need_a_small_part_of_the_memory() {
    let text = |more: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/nano-dense.toml");
        std::fs::read_to_string(path).unwrap().replace("[optimizer]\nkind = \"muon\"", more)
    };
    let parse = |text: String| Recipe::parse("x.toml", &text).unwrap();
    let whole = parse(text("[optimizer]\nkind = \"adamw\""));
    let adapted = text("[lora]\nrank = 8\n[optimizer]\nkind = \"adamw\"").replace("[init]", "[init]\nfrom = \"x\"");
    let plan = |recipe: Recipe| MemoryPlan::of(&recipe, &recipe.spec().unwrap());
    let (whole, adapted) = (plan(whole), plan(parse(adapted)));
    assert!(adapted.masters < whole.masters / 20 && adapted.moments < whole.moments / 20, "{adapted:?}");
    assert!(adapted.gradients < whole.gradients / 3, "one block of the model and one matrix: {adapted:?}");
    assert!(adapted.copies < whole.copies && adapted.copies > whole.copies / 2, "{adapted:?}");
}

#[test]
fn a_trial_says_what_a_run_takes_and_writes_nothing() {
    let site = common::Site::new();
    let recipe = site.recipe(&[("[0.5, 0.1]", "[0.5, 0.0]")]);
    let before = std::fs::read_dir(site.root.path()).unwrap().count();
    let found = trial(&recipe, &Pool::new(1)).unwrap();
    assert_eq!(found.memory, MemoryPlan::of(&recipe, &recipe.spec().unwrap()));
    let [first, last] = found.step_seconds;
    assert!(first > 0.0 && last > 0.0 && found.evaluation_seconds > 0.0, "{found:?}");
    // 40 steps, the second half without the prediction module.
    let expected = 20.0 * (first + last) + found.evaluation_seconds;
    assert!((found.seconds - expected).abs() < 1e-9 * expected, "{found:?}");
    assert_eq!(std::fs::read_dir(site.root.path()).unwrap().count(), before);
}
