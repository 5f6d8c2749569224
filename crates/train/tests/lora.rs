//! Adapters on a frozen model, and distillation from a teacher's logits: resumed as undisturbed, merged as trained, and
//! the models that they depend on are the ones that they were begun with.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Site, Told, timeless};
use kernels::pool::Pool;
use model::load::Model;
use train::export::{Storage, export};
use train::learner::{Learner, Teacher, Transformer};
use train::pretrain::{Limits, pretrain};
use train::recipe::{Recipe, RecipeError};
use train::run::{End, Origins, checkpoint};

fn go(recipe: &Recipe, folder: &Path, threads: usize, until: Option<u64>) -> Result<Told, String> {
    let mut told = Told::default();
    let limits = Limits { until_step: until, ..Limits::default() };
    let stop = AtomicBool::new(false);
    let ended = pretrain(recipe, folder, &Pool::new(threads), &limits, &stop, &mut told);
    let (_, end) = ended.map_err(|error| error.to_string())?;
    assert_eq!(end, if until.is_some() { End::Steps } else { End::Finished });
    Ok(told)
}

/// The checkpoint's numbers, byte by byte.
fn weights(folder: &Path) -> Vec<u8> {
    let (path, _) = checkpoint::newest(&folder.join("checkpoints"), &mut |text| panic!("{text}")).unwrap();
    std::fs::read(path.join("masters.f32")).unwrap()
}

/// A site with a trained model in `base`.
fn site() -> Site {
    let site = Site::new();
    let recipe = site.recipe(&[("tokens = 5120", "tokens = 1536")]);
    go(&recipe, &site.path("base-run"), 2, None).unwrap();
    export(&site.path("base-run"), &site.path("base"), Storage::F32, &mut |text| panic!("{text}")).unwrap();
    // Something new to learn: the same, backwards.
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let texts: Vec<String> = common::stories(300, 1).split("\n\n").map(backwards).collect();
    std::fs::write(site.path("stories.txt"), texts.join("\n\n")).unwrap();
    site
}

const NO_MTP: (&str, &str) = ("mtp_weight = [[0, 0.3], [0.5, 0.1]]\nbias_speed = [[0, 0.01], [0.9, 0]]\n", "");

fn lora(site: &Site, more: &[(&str, &str)]) -> Result<Recipe, RecipeError> {
    let start = "[init]\nfrom = \"base\"\n\n[lora]\nrank = 4\ntargets = []\n\n[tokenizer]";
    let mut changes = vec![
        ("tokens = 5120", "tokens = 1536"),
        ("[tokenizer]", start),
        NO_MTP,
        ("[optimizer]\n", "[optimizer]\nkind = \"adamw\"\n"),
    ];
    changes.extend(more);
    site.try_recipe(&changes)
}

#[test]
fn adapters_resume_to_the_same_bits_and_merge_into_the_model_that_was_trained() {
    let site = site();
    let targets = "targets = [\"q_proj\", \"kv_b_proj\", \"o_proj\", \"down_proj\", \"experts.up_proj\"]";
    for (precision, storage) in [("f32", Storage::F32), ("bf16", Storage::Bf16)] {
        let change = format!("micro_batch_tokens = 64\nprecision = \"{precision}\"");
        let recipe = lora(&site, &[("micro_batch_tokens = 64", &change), ("targets = []", targets)]).unwrap();
        let (whole, parts) = (site.path(&format!("{precision}-whole")), site.path(&format!("{precision}-parts")));
        go(&recipe, &whole, 2, None).unwrap();
        go(&recipe, &parts, 1, Some(1)).unwrap();
        go(&recipe, &parts, 2, Some(7)).unwrap();
        go(&recipe, &parts, 1, None).unwrap();
        assert_eq!(weights(&parts), weights(&whole), "{precision}");
        let log = timeless(&whole);
        assert_eq!(timeless(&parts), log, "{precision}");
        assert!(log[11].loss < log[0].loss, "{} {}", log[0].loss, log[11].loss);

        // What is exported computes what was trained: in f32 to the bit of every weight.
        let out = site.path(&format!("{precision}-merged"));
        export(&whole, &out, storage, &mut |text| panic!("{text}")).unwrap();
        let (merged, base) = (Model::open(&out).unwrap(), Model::open(&site.path("base")).unwrap());
        let pool = Pool::new(2);
        let mut trained = Transformer::new(&recipe, recipe.spec().unwrap(), &pool).unwrap();
        let (path, state) = checkpoint::newest(&whole.join("checkpoints"), &mut |text| panic!("{text}")).unwrap();
        let masters = checkpoint::masters(&path, trained.parameters()).unwrap();
        trained.masters_mut().clone_from_slice(&masters);
        trained.refresh(&pool);
        let tokens = [3, 50, 7, 201, 9, 9, 120];
        let logits = |model: &Model| common::logits(model, &pool, &tokens);
        let (ours, theirs, before) = (logits(&merged), logits(trained.model()), logits(&base));
        let off = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        let largest = theirs.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        let bound = if precision == "bf16" { 0.05 } else { 1e-5 };
        assert!(off(&ours, &theirs) <= bound * largest, "{} of {largest}", off(&ours, &theirs));
        assert!(off(&before, &theirs) > 3.0 * bound * largest, "the adapters did something");
        assert_eq!(Origins::of(&state).base.unwrap().path, site.path("base").canonicalize().unwrap());
        let elements: u64 = trained.parameters().iter().map(|p| p.elements()).sum();
        assert_eq!((state.elements, weights(&whole).len() as u64), (elements, 4 * elements));
    }
}

#[test]
fn another_base_is_refused_on_the_way_and_at_the_end() {
    let site = site();
    let recipe = lora(&site, &[]).unwrap();
    let folder = site.path("run");
    go(&recipe, &folder, 2, Some(2)).unwrap();
    let file = site.path("base/model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&file, changed).unwrap();
    let refused = go(&recipe, &folder, 2, None).unwrap_err();
    assert!(refused.contains("begun with another model"), "{refused}");
    let refused = export(&folder, &site.path("out"), Storage::F32, &mut |_| {}).err().unwrap().to_string();
    assert!(refused.contains("another model than the one that was adapted"), "{refused}");
    // Moved, it is the same model.
    std::fs::write(&file, bytes).unwrap();
    std::fs::rename(site.path("base"), site.path("moved")).unwrap();
    let moved = lora(&site, &[("from = \"base\"", "from = \"moved\"")]).unwrap();
    let refused = go(&moved, &folder, 2, None).unwrap_err();
    assert!(refused.contains("another recipe"), "the path stands in the recipe: {refused}");
    std::fs::rename(site.path("moved"), site.path("base")).unwrap();
    go(&recipe, &folder, 2, None).unwrap();
}

fn distil(site: &Site, teacher: &str) -> Recipe {
    let start = format!("[teacher]\nfrom = \"base\"\n{teacher}\n\n[tokenizer]");
    let changes =
        [("tokens = 5120", "tokens = 1536"), ("[tokenizer]", start.as_str()), NO_MTP, ("seed = 3", "seed = 4")];
    site.recipe(&changes)
}

#[test]
fn a_student_learns_its_teachers_distribution_and_resumes_to_the_same_bits() {
    let site = site();
    let recipe = distil(&site, "top = 16\nshare = 0.8");
    let (whole, parts) = (site.path("whole"), site.path("parts"));
    go(&recipe, &whole, 2, None).unwrap();
    go(&recipe, &parts, 1, Some(5)).unwrap();
    go(&recipe, &parts, 2, None).unwrap();
    assert_eq!(weights(&parts), weights(&whole));
    assert_eq!(timeless(&parts), timeless(&whole));
    let log = timeless(&whole);
    assert!(log[11].loss < log[0].loss - 0.1, "{} {}", log[0].loss, log[11].loss);
    let held_out = |at: usize| log[at].held_out.as_ref().map(|held_out| held_out.loss);
    assert!(held_out(9).is_some_and(|loss| loss < log[0].loss), "measured on the data's own tokens");
}

#[test]
fn a_model_has_nothing_to_learn_from_itself() {
    let site = site();
    let pool = Pool::new(2);
    let start = "[init]\nfrom = \"base\"\n\n[tokenizer]";
    let exact = ("micro_batch_tokens = 64", "micro_batch_tokens = 64\nprecision = \"f32\"");
    let own = site.recipe(&[NO_MTP, ("[tokenizer]", start), exact]);
    let data = site.data(&own);
    let norm = |share: &str| {
        let distilled = distil(&site, &format!("top = 400\nshare = {share}"));
        let settings = distilled.teacher.clone().unwrap();
        let tokenizer = train::data::tokenizer(&own, common::VOCABULARY).unwrap();
        let teacher = Teacher::open(&site.path("base"), &settings, &tokenizer).unwrap();
        let mut student = Transformer::new(&own, own.spec().unwrap(), &pool).unwrap();
        student.learn_from(teacher);
        let batch = data.main.batch(&[0, 1], false).unwrap();
        let mut gradients: Vec<Vec<f32>> = student.masters().iter().map(|m| vec![0.0; m.len()]).collect();
        student.learn(&pool, &batch, 1.0, &Default::default(), &mut gradients);
        gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
    };
    let (soft, hard) = (norm("1.0"), norm("0.0"));
    // What is left is the share of numbers that are no token, which a teacher does not teach.
    assert!(soft < 0.02 * hard, "{soft} and {hard}");
    // Another tokenizer is another language.
    let other = site.path("other");
    std::fs::create_dir(&other).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(site.path("base").join(name), other.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(site.path("base/tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let names: Vec<String> =
        vocab.iter().filter(|(_, id)| [20, 21].contains(&id.as_u64().unwrap())).map(|v| v.0.clone()).collect();
    let (a, b) = (vocab[&names[0]].clone(), vocab[&names[1]].clone());
    vocab[&names[0]] = b;
    vocab[&names[1]] = a;
    std::fs::write(other.join("tokenizer.json"), json.to_string()).unwrap();
    let settings = distil(&site, "").teacher.unwrap();
    let tokenizer = train::data::tokenizer(&own, common::VOCABULARY).unwrap();
    let refused = Teacher::open(&other, &settings, &tokenizer).err().unwrap().to_string();
    assert!(refused.contains("token 20 is") && refused.contains("fathom sample"), "{refused}");
}
