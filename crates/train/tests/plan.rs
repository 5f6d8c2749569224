//! Published costs, and refusals.

use model::families::read_config;
use model::spec::ModelSpec;
use train::plan::{Cluster, PlanError, Pretraining, Work, pretraining, published, shapes};

fn spec(name: &str) -> ModelSpec {
    let path = format!("{}/../model/tests/fixtures/configs/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let config = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    read_config(&config).unwrap().0
}

fn v3_run() -> Pretraining {
    Pretraining { tokens: 14.8e12, sequence: 4096, batch: 15360, fp8: true, recompute_up_projections: true }
}

#[test]
fn published_costs_are_met_within_five_percent() {
    let rows = published().unwrap();
    for row in &rows {
        eprintln!(
            "{:56} {:>10.0} {:>10.0} {:+.1} %",
            row.what,
            row.published_hours,
            row.planned_hours,
            100.0 * row.error()
        );
    }
    for row in &rows {
        assert!(row.error().abs() < 0.05, "{}: {} planned", row.what, row.planned_hours);
    }
    assert_eq!(rows.iter().filter(|row| row.calibrates).count(), 1);
}

#[test]
fn cost_rises_with_size() {
    let costs: Vec<f64> =
        shapes().iter().map(|(_, spec)| pretraining(spec, &v3_run(), &Cluster::v3()).unwrap().cost).collect();
    assert_eq!(costs.len(), 5);
    // V2 is dearer than its size says beside V3 with FP8 for both; the largest cost most.
    assert!(costs[0] < costs[2] && costs[2] < costs[3] && costs[1] < costs[2], "{costs:?}");
}

#[test]
fn work_counts_what_the_description_counts() {
    let spec = spec("deepseek-v3");
    let work = Work::of(&spec, 4096);
    let counts = spec.counts();
    assert_eq!(work.parameters, counts.total + counts.mtp);
    let without_mtp = Work::of(&ModelSpec { mtp: Vec::new(), ..spec }, 4096);
    // Norms and biases are in the counts and not in the products.
    let off = counts.active as f64 / without_mtp.active() as f64 - 1.0;
    assert!((0.0..1e-3).contains(&off), "{} {}", counts.active, without_mtp.active());
}

#[test]
fn v3_fits_the_memory_of_its_devices() {
    let estimate = pretraining(&spec("deepseek-v3"), &v3_run(), &Cluster::v3()).unwrap();
    let gib = estimate.memory.total() / f64::from(1 << 30);
    assert!((20.0..80.0).contains(&gib), "{gib} GiB");
    assert!((estimate.hours - 54.0 * 24.0).abs() < 0.1 * 54.0 * 24.0, "{} hours on the clock", estimate.hours);
}

#[test]
fn what_cannot_be_is_refused() {
    let spec = spec("deepseek-v2-lite");
    let refuse = |change: fn(&mut Cluster)| {
        let mut cluster = Cluster::v3();
        change(&mut cluster);
        pretraining(&spec, &v3_run(), &cluster).unwrap_err()
    };
    assert_eq!(refuse(|c| c.pipeline = 3), PlanError::Cut { devices: 2048, pipeline: 3, expert: 64 });
    assert_eq!(refuse(|c| c.devices = 0), PlanError::Number { name: "devices", value: 0.0 });
    assert_eq!(refuse(|c| c.device.dense_share = 1.5), PlanError::Number { name: "dense_share", value: 1.5 });
    let run = Pretraining { tokens: f64::NAN, ..v3_run() };
    let error = pretraining(&spec, &run, &Cluster::v3()).unwrap_err().to_string();
    assert_eq!(error, "tokens is NaN; it must be above 0 (a share at most 1)");
}
