//! What a training run would take: time, memory and money, for any model on any cluster.
//!
//! The estimate adds up products by kind: dense ones, experts', attention, head, each at the share of the peak that
//! the cluster's device reaches for it. For the H800 the two shares come from two published costs (DeepSeek-67B for
//! dense layers, DeepSeek-V2 for experts); V3's and R1-Zero's costs are then predictions, and
//! [`published`] compares them with what was reported.

mod cluster;
mod published;
mod reinforce;
mod work;

pub use cluster::{Cluster, Device, Schedule};
pub use published::{Published, published, shapes};
pub use reinforce::Reinforcement;
pub use work::Work;

use model::spec::ModelSpec;
use thiserror::Error;

/// Why there is no plan.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum PlanError {
    /// A number that cannot be.
    #[error("{name} is {value}; it must be above 0 (a share at most 1)")]
    Number {
        /// The field.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// Devices that do not divide.
    #[error("{devices} devices cannot be cut into {pipeline} pipeline stages with experts over {expert} devices each")]
    Cut {
        /// All devices.
        devices: u64,
        /// Stages.
        pipeline: u64,
        /// Devices that share a layer's experts.
        expert: u64,
    },
}

/// A run of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pretraining {
    /// Tokens in all.
    pub tokens: f64,
    /// Tokens of a sequence.
    pub sequence: u64,
    /// Sequences of a step.
    pub batch: u64,
    /// Whether products other than the head's and attention's own are FP8 (V3 report, section 3.3).
    pub fp8: bool,
    /// Whether latent attention's up projections are computed again in the backward pass (V3 report, section 3.2.3).
    pub recompute_up_projections: bool,
}

/// What a run takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Operations of one token.
    pub operations_per_token: f64,
    /// Seconds of one device for a token, by kind: dense, experts, head, attention.
    pub device_seconds_per_token: [f64; 4],
    /// Share of the time that the pipeline is not full.
    pub bubble: f64,
    /// Hours of one device for the whole run.
    pub device_hours: f64,
    /// Hours on the clock.
    pub hours: f64,
    /// Dollars.
    pub cost: f64,
    /// Memory of the device that holds most.
    pub memory: Memory,
}

/// Memory of one device, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Weights as products use them (one byte each in FP8, else two).
    pub weights: f64,
    /// f32 gradients.
    pub gradients: f64,
    /// f32 master weights and two bf16 moments, cut among the copies that share a stage (ZeRO-1).
    pub optimiser: f64,
    /// What the backward pass needs of the forward pass, for all micro-batches in flight.
    pub activations: f64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.weights + self.gradients + self.optimiser + self.activations
    }
}

/// Estimates a run of pre-training.
///
/// # Errors
/// If the cluster cannot be cut as it says or a number cannot be.
pub fn pretraining(spec: &ModelSpec, run: &Pretraining, cluster: &Cluster) -> Result<Estimate, PlanError> {
    cluster.check()?;
    for (name, value) in [("tokens", run.tokens), ("sequence", run.sequence as f64), ("batch", run.batch as f64)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(PlanError::Number { name, value });
        }
    }
    let work = Work::of(spec, run.sequence);
    let micro_batches = run.batch as f64 / cluster.data() as f64;
    let bubble = cluster.bubble(micro_batches);
    let parts = seconds_per_token(&work, run, &cluster.device);
    let device_hours = parts.iter().sum::<f64>() / (1.0 - bubble) * run.tokens / 3600.0;
    Ok(Estimate {
        operations_per_token: work.training_operations(),
        device_seconds_per_token: parts,
        bubble,
        device_hours,
        hours: device_hours / cluster.devices as f64,
        cost: device_hours * cluster.device.price_per_hour,
        memory: memory(spec, &work, run, cluster),
    })
}

/// Seconds of one device for a token: dense, experts, head, attention.
fn seconds_per_token(work: &Work, run: &Pretraining, device: &Device) -> [f64; 4] {
    let bf16 = device.bf16_tflops * 1e12;
    let products = if run.fp8 { device.fp8_tflops.map_or(bf16, |t| t * 1e12) } else { bf16 };
    let again = if run.recompute_up_projections { 2.0 * work.recomputed as f64 } else { 0.0 };
    [
        (6.0 * work.dense_active as f64 + again) / (products * device.dense_share),
        6.0 * work.expert_active as f64 / (products * device.expert_share),
        6.0 * work.head_active as f64 / (bf16 * device.dense_share),
        3.5 * work.attention_operations / (bf16 * device.dense_share),
    ]
}

fn memory(spec: &ModelSpec, work: &Work, run: &Pretraining, cluster: &Cluster) -> Memory {
    let stages = cluster.pipeline as f64;
    // Layers are spread evenly; embedding and head lie on the stages at the ends.
    let ends = (spec.vocab * spec.hidden) as f64;
    let layers = (work.parameters - work.expert_parameters) as f64 - ends * if spec.head.tied { 1.0 } else { 2.0 };
    let own = layers / stages + ends;
    let experts = work.expert_parameters as f64 / stages / cluster.expert as f64;
    let parameters = own + experts;
    // Own weights exist once in each copy of the stage, experts in fewer.
    let sharded = own / cluster.data() as f64 + experts * cluster.expert as f64 / cluster.data() as f64;
    let layers_here = (spec.blocks.len() as f64 / stages).ceil();
    let per_token: f64 = spec.blocks.iter().map(|block| kept_elements(block, spec.hidden)).fold(0.0, f64::max);
    // The FP8 recipe keeps the inputs of products in FP8 (V3 report, section 3.3.3).
    let bytes = if run.fp8 { 1.0 } else { 2.0 };
    let in_flight = if cluster.pipeline > 1 { stages + 1.0 } else { 1.0 };
    Memory {
        weights: parameters * bytes,
        gradients: parameters * 4.0,
        optimiser: sharded * 8.0,
        activations: bytes * per_token * layers_here * run.sequence as f64 * in_flight,
    }
}

/// What a block keeps of a token for its backward pass: the inputs of its products.
fn kept_elements(block: &model::spec::BlockSpec, hidden: usize) -> f64 {
    use model::spec::{Attention, Ffn};
    let attention = match &block.attention {
        // The up projections are computed again.
        Attention::Mla(mla) => {
            mla.q_rank.unwrap_or(mla.heads * mla.key_dim()) + mla.latent_dim() + mla.heads * mla.v_dim
        }
        Attention::Gqa(gqa) => (2 * gqa.heads + 2 * gqa.kv_heads) * gqa.head_dim,
    };
    let ffn = match &block.ffn {
        Ffn::Dense(dense) => 2 * dense.width,
        Ffn::Moe(moe) => moe.used * (hidden + 2 * moe.expert.width) + moe.shared.map_or(0, |s| 2 * s.width),
    };
    (2 * hidden + attention + ffn) as f64
}
