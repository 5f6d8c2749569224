//! Published costs beside what the plan says.

use model::families::read_config;
use model::spec::ModelSpec;

use super::{Cluster, Device, PlanError, Pretraining, Reinforcement, Schedule, pretraining};

/// One published figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// What was measured, and where it was published.
    pub what: &'static str,
    /// H800 hours as published.
    pub published_hours: f64,
    /// H800 hours by the plan.
    pub planned_hours: f64,
    /// Whether the figure set one of the plan's constants: it then shows only that the arithmetic is closed.
    pub calibrates: bool,
}

impl Published {
    /// By how much the plan is off, as a share of what was published.
    pub fn error(&self) -> f64 {
        self.planned_hours / self.published_hours - 1.0
    }
}

/// Published configurations that plans compare with, smallest first.
const SHAPES: [(&str, &str); 5] = [
    ("V2-Lite", include_str!("../../../model/tests/fixtures/configs/deepseek-v2-lite.json")),
    ("GigaChat 3 10B", include_str!("../../../model/tests/fixtures/configs/gigachat3-10b-a1.8b.json")),
    ("V2", include_str!("../../../model/tests/fixtures/configs/deepseek-v2.json")),
    ("V3", include_str!("../../../model/tests/fixtures/configs/deepseek-v3.json")),
    ("Kimi K2", include_str!("../../../model/tests/fixtures/configs/kimi-k2.json")),
];

/// Models of published shapes, smallest first, with their names.
///
/// # Panics
/// Never: the configurations are part of the program and a test reads them.
pub fn shapes() -> Vec<(&'static str, ModelSpec)> {
    let read = |text: &str| -> ModelSpec {
        let config = serde_json::from_str(text).expect("a published configuration");
        read_config(&config).expect("a known family").0
    };
    SHAPES.iter().map(|(name, text)| (*name, read(text))).collect()
}

fn shape(name: &str) -> ModelSpec {
    shapes().into_iter().find(|(n, _)| *n == name).expect("one of the shapes").1
}

/// The costs of DeepSeek-V2, V3, R1-Zero and R1, from their descriptions.
///
/// # Errors
/// If a description does not fit the published cut.
pub fn published() -> Result<Vec<Published>, PlanError> {
    let (v2, v3) = (&shape("V2"), &shape("V3"));
    const TRILLION: f64 = 1e12;
    let v3_cluster = Cluster::v3();
    let v3_run = |tokens: f64, sequence: u64, batch: u64| Pretraining {
        tokens,
        sequence,
        batch,
        fp8: true,
        recompute_up_projections: true,
    };
    let hours = |run: &Pretraining| pretraining(v3, run, &v3_cluster).map(|e| e.device_hours);
    let v3_trillion = hours(&v3_run(TRILLION, 4096, 15360))?;
    // Section 4.3: a thousand steps of 1,920 sequences of 32K tokens, then of 480 of 128K.
    let longer = hours(&v3_run(1000.0 * 1920.0 * 32768.0, 32768, 1920))?
        + hours(&v3_run(1000.0 * 480.0 * 131072.0, 131072, 480))?;
    // Table 1 counts 5K hours for what comes after pre-training; its settings are not published.
    const V3_AFTER_HOURS: f64 = 5e3;
    let v3_all = v3_trillion * 14.8 + longer + V3_AFTER_HOURS;

    let v2_cluster =
        Cluster { device: Device::h800(), devices: 1024, pipeline: 16, expert: 8, schedule: Schedule::ZeroBubble };
    let v2_run =
        Pretraining { tokens: TRILLION, sequence: 4096, batch: 9216, fp8: false, recompute_up_projections: false };
    let v2_trillion = pretraining(v2, &v2_run, &v2_cluster)?.device_hours;

    let zero = r1_zero_hours(v3)?;
    // R1's settings after R1-Zero are published in part; its hours are taken as they are (supplement B.4.4).
    const R1_DATA_HOURS: f64 = 5e3;
    const R1_STAGES_HOURS: f64 = 41e3;
    let row = |what, published_hours, planned_hours, calibrates| Published {
        what,
        published_hours,
        planned_hours,
        calibrates,
    };
    Ok(vec![
        row("DeepSeek-V2, 1e12 tokens (V2 report, 3.2.3)", 172.8e3, v2_trillion, true),
        row("DeepSeek-V3, 1e12 tokens (V3 report, 1)", 180e3, v3_trillion, false),
        row("DeepSeek-V3, all of training (V3 report, table 1)", 2788e3, v3_all, false),
        row("R1-Zero (R1, supplement B.4.4)", 101e3, zero, false),
        row("R1 with R1-Zero and data (same place)", 147e3, zero + R1_DATA_HOURS + R1_STAGES_HOURS, false),
    ])
}

/// R1-Zero: 10,400 steps of 512 answers on 512 devices, 16 steps a rollout, the limit 32,768 tokens for the first
/// 8,200 steps and 65,536 after (Nature version, methods). Mean lengths are read off its figure: they rise evenly
/// from some hundreds to 9,000 tokens, then jump and rise to 18,000.
fn r1_zero_hours(v3: &ModelSpec) -> Result<f64, PlanError> {
    let cluster = Cluster { devices: 512, pipeline: 8, expert: 64, ..Cluster::v3() };
    let first = Reinforcement {
        steps: 8200,
        answers_per_step: 512,
        steps_per_rollout: 16,
        tokens_max: 32768,
        tokens_mean: 4500.0,
    };
    let second = Reinforcement { steps: 2200, tokens_max: 65536, tokens_mean: 14000.0, ..first };
    Ok(first.device_hours(v3, &cluster)? + second.device_hours(v3, &cluster)?)
}
