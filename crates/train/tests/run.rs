//! What a run promises: the same bits after any stop, no checkpoint that is not whole, nothing done on bad steps.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Bigram, Site, Told, timeless, train};
use kernels::pool::Pool;
use train::learner::Learner;
use train::run::{self, End, Options, RunError, checkpoint};

#[test]
fn a_run_that_stops_often_ends_with_the_same_bits() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let data = site.data(&recipe);
    let (whole, parts) = (site.path("whole"), site.path("parts"));
    let mut learner = Bigram::new();
    let (state, end) = train(&recipe, &data, &whole, 1000, &mut learner, &mut Told::default()).unwrap();
    assert_eq!((state.step, end), (40, End::Finished));

    let mut last = Vec::new();
    for (start, until) in [1, 2, 7, 8, 21, 40].into_iter().enumerate() {
        // A new learner each time: all that goes on comes from the checkpoint.
        let mut again = Bigram::new();
        let (state, end) = train(&recipe, &data, &parts, until, &mut again, &mut Told::default()).unwrap();
        assert_eq!((state.step, state.starts), (until, start as u64 + 1));
        assert_eq!(end, if until == 40 { End::Finished } else { End::Steps });
        last = again.masters().to_vec();
    }
    assert_eq!(last, learner.masters());
    assert_eq!(timeless(&parts), timeless(&whole));
    let losses: Vec<f64> = timeless(&whole).iter().map(|line| line.loss).collect();
    assert!(losses[39] < 0.8 * losses[0], "{losses:?}");
    // Round steps and the two newest are kept.
    let kept = |folder: &Path| checkpoint::list(&folder.join("checkpoints")).iter().map(|c| c.0).collect::<Vec<_>>();
    assert_eq!(kept(&whole), [20, 35, 40]);
}

#[test]
fn steps_after_the_last_checkpoint_are_done_again_and_logged_once() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let data = site.data(&recipe);
    let (whole, cut) = (site.path("whole"), site.path("cut"));
    let mut learner = Bigram::new();
    train(&recipe, &data, &whole, 12, &mut learner, &mut Told::default()).unwrap();
    train(&recipe, &data, &cut, 12, &mut Bigram::new(), &mut Told::default()).unwrap();
    // As a kill at step 12 would have left it: the newest checkpoint is that of step 10, one is half written, and so
    // is the last line of the log.
    let folder = cut.join("checkpoints");
    std::fs::rename(folder.join("step-00000012"), folder.join("part-00000012")).unwrap();
    let log = std::fs::read(cut.join("log.jsonl")).unwrap();
    std::fs::write(cut.join("log.jsonl"), &log[..log.len() - 20]).unwrap();
    let mut again = Bigram::new();
    let mut told = Told::default();
    train(&recipe, &data, &cut, 12, &mut again, &mut told).unwrap();
    assert_eq!(told.notes[0], "going on from step 10");
    assert_eq!(told.lines.len(), 2);
    assert_eq!(again.masters(), learner.masters());
    assert_eq!(timeless(&cut), timeless(&whole));
    assert!(!folder.join("part-00000012").exists());
}

#[test]
fn damage_to_any_file_of_a_checkpoint_is_found_and_the_one_before_is_taken() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let data = site.data(&recipe);
    for (file, at) in [("masters.f32", 4001), ("moments.f32", 77), ("state.json", 30), ("SHA256SUMS", 3)] {
        let folder = site.path(file);
        let mut learner = Bigram::new();
        train(&recipe, &data, &folder, 10, &mut learner, &mut Told::default()).unwrap();
        let damage = |step: &str| {
            let path = folder.join("checkpoints").join(step).join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        };
        damage("step-00000010");
        let (mut again, mut told) = (Bigram::new(), Told::default());
        train(&recipe, &data, &folder, 10, &mut again, &mut told).unwrap();
        assert!(told.warnings[0].contains("step-00000010") && told.warnings[0].contains(file), "{:?}", told.warnings);
        assert_eq!(told.notes[0], "going on from step 5");
        assert_eq!(again.masters(), learner.masters());

        damage("step-00000005");
        damage("step-00000010");
        let refused = train(&recipe, &data, &folder, 10, &mut Bigram::new(), &mut Told::default());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("no checkpoint of this run is whole"), "{message}");
    }
}

#[test]
fn a_run_goes_on_with_its_own_recipe_and_data_only() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let data = site.data(&recipe);
    let folder = site.path("run");
    train(&recipe, &data, &folder, 5, &mut Bigram::new(), &mut Told::default()).unwrap();
    let other = site.recipe(&[("lr = 0.01", "lr = 0.02")]);
    let refused = train(&other, &data, &folder, 6, &mut Bigram::new(), &mut Told::default());
    assert!(matches!(refused, Err(RunError::Changed { what: "recipe", .. })), "{refused:?}");
    let longer = site.recipe(&[("tokens = 4000", "tokens = 4500")]);
    let other_data = site.data(&longer);
    let refused = train(&recipe, &other_data, &folder, 6, &mut Bigram::new(), &mut Told::default());
    assert!(matches!(refused, Err(RunError::Changed { what: "training set", .. })), "{refused:?}");
    // How often is looked and saved may change.
    let watched = site.recipe(&[("evaluate_every = 10", "evaluate_every = 3")]);
    let mut told = Told::default();
    train(&watched, &data, &folder, 6, &mut Bigram::new(), &mut told).unwrap();
    assert!(told.lines[0].held_out.is_some());
}

#[test]
fn useless_steps_change_nothing_and_too_many_end_the_run() {
    let site = Site::new();
    let recipe = site.recipe(&[("keep_every = 20", "keep_every = 20\nskipped_max = 3")]);
    let data = site.data(&recipe);
    // Two micro-batches a step: call 7 is in step 4.
    let mut learner = Bigram::new();
    learner.sick = Some((7, 1));
    let mut told = Told::default();
    let (state, _) = train(&recipe, &data, &site.path("once"), 6, &mut learner, &mut told).unwrap();
    assert_eq!((state.skipped, state.updates, state.step), (1, 5, 6));
    assert_eq!(told.warnings, ["step 4 is skipped because of a value that is not finite in layer 1"]);
    assert!(learner.masters().iter().flatten().all(|w| w.is_finite()));
    assert!(told.lines[3].skipped.is_some() && told.lines[4].skipped.is_none());

    let mut learner = Bigram::new();
    learner.sick = Some((7, 1000));
    let ended = train(&recipe, &data, &site.path("always"), 40, &mut learner, &mut Told::default());
    let message = ended.unwrap_err().to_string();
    let wanted =
        "stopped at step 7: 4 steps in a row had to be skipped, the last because of a value that is not finite";
    assert!(message.starts_with(wanted), "{message}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_said_and_tried_again() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let data = site.data(&recipe);
    let (folder, whole) = (site.path("run"), site.path("whole"));
    // A file where the new checkpoint's folder should be: writing fails as on a full disk.
    std::fs::create_dir_all(folder.join("checkpoints")).unwrap();
    std::fs::write(folder.join("checkpoints/part-00000010"), "").unwrap();
    let (mut learner, mut told) = (Bigram::new(), Told::default());
    let (state, _) = train(&recipe, &data, &folder, 16, &mut learner, &mut told).unwrap();
    assert_eq!(state.step, 16);
    assert_eq!(told.warnings.len(), 1, "{:?}", told.warnings);
    assert!(told.warnings[0].contains("the last good checkpoint is step 5"), "{}", told.warnings[0]);
    let mut undisturbed = Bigram::new();
    train(&recipe, &data, &whole, 16, &mut undisturbed, &mut Told::default()).unwrap();
    assert_eq!(learner.masters(), undisturbed.masters());
}

#[test]
fn interruption_and_time_end_a_run_after_a_save() {
    let site = Site::new();
    let recipe = site.recipe(&[]);
    let data = site.data(&recipe);
    let folder = site.path("run");
    let pool = Pool::new(1);
    let mut told = Told::default();
    let mut go = |stop_after, stop: bool| {
        let options = Options { folder: folder.clone(), stop_after, ..Options::default() };
        let stop = AtomicBool::new(stop);
        run::run(&recipe, &mut Bigram::new(), &data, &pool, &options, &mut || Ok(()), &stop, &mut told).unwrap()
    };
    let (state, end) = go(None, true);
    assert_eq!((state.step, end), (0, End::Interrupted));
    let (state, end) = go(Some(std::time::Duration::ZERO), false);
    assert_eq!((state.step, end), (0, End::Time));
    let (state, end) = go(None, false);
    assert_eq!((state.step, end, state.starts), (40, End::Finished, 2)); // a start that did nothing is not counted
}

#[test]
fn two_processes_cannot_train_in_one_folder() {
    let site = Site::new();
    let held = run::lock(&site.path("run")).unwrap();
    // Another handle of the same file is another holder.
    assert!(matches!(run::lock(&site.path("run")), Err(RunError::Busy { .. })));
    drop(held);
    run::lock(&site.path("run")).unwrap();
}
