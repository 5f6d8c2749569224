//! Machines: what they compute, hold, move and cost.

use serde::Deserialize;

use super::PlanError;

/// A number of equal devices and how work is cut among them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// One of them.
    pub device: Device,
    /// How many.
    pub devices: u64,
    /// Stages of the pipeline: the layers are cut into so many parts.
    #[serde(default = "one")]
    pub pipeline: u64,
    /// Devices that share the experts of a layer.
    #[serde(default = "one")]
    pub expert: u64,
    /// How a pipeline is filled.
    #[serde(default)]
    pub schedule: Schedule,
}

/// One accelerator, or one machine of processors.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name, for people.
    pub name: String,
    /// Peak of bf16 products, 1e12 operations a second.
    pub bf16_tflops: f64,
    /// Peak of FP8 products; none: as bf16.
    pub fp8_tflops: Option<f64>,
    /// Memory, GiB.
    pub memory_gib: f64,
    /// Share of the peak that products of dense layers and attention reach in training, all overheads included
    /// but the pipeline's bubble.
    pub dense_share: f64,
    /// The same of experts' products: smaller matrices, tokens sent to them and back.
    pub expert_share: f64,
    /// Price of an hour, in dollars.
    pub price_per_hour: f64,
    /// Tokens a second of one sequence in decoding, what drafting saves included; for reinforcement learning.
    #[serde(default)]
    pub decode_tokens_per_s: f64,
}

/// How a pipeline is filled: the V3 report's table 2 has their bubbles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// One forward, one backward.
    OneForwardOneBackward,
    /// Zero-bubble, ZB1P.
    #[default]
    ZeroBubble,
    /// V3's, from both ends.
    DualPipe,
}

fn one() -> u64 {
    1
}

/// Share of bf16's peak that dense training reached: DeepSeek-67B, 300.6K H800 hours for 1e12 tokens (V2 report,
/// section 3.2.3) over its 418.6 + 9.3 (scores again) GFLOP a token at 4K, less a bubble of 4 %.
const H800_DENSE_SHARE: f64 = 0.4165;
/// The same of experts: what DeepSeek-V2's 172.8K hours for 1e12 tokens (same place) leave for them after the rest
/// has run at the dense share.
const H800_EXPERT_SHARE: f64 = 0.180;

impl Device {
    /// NVIDIA H800 as DeepSeek used it, at two dollars an hour (V3 report, table 1). 22 tokens a second is the upper
    /// end of what DeepSeek's own service gave a user (February 2025), 1.8 what multi-token prediction multiplies
    /// that by (V3 report, section 5.4.3).
    pub fn h800() -> Device {
        Device {
            name: "H800".to_string(),
            bf16_tflops: 989.0,
            fp8_tflops: Some(1979.0),
            memory_gib: 80.0,
            dense_share: H800_DENSE_SHARE,
            expert_share: H800_EXPERT_SHARE,
            price_per_hour: 2.0,
            decode_tokens_per_s: 22.0 * 1.8,
        }
    }
}

impl Cluster {
    /// V3's own: 2,048 H800, 16 stages, experts over 64 devices (V3 report, section 3.2).
    pub fn v3() -> Cluster {
        Cluster { device: Device::h800(), devices: 2048, pipeline: 16, expert: 64, schedule: Schedule::DualPipe }
    }

    /// Checks that the cut is possible.
    ///
    /// # Errors
    /// If a number is not usable, or the devices cannot be cut this way.
    pub fn check(&self) -> Result<(), PlanError> {
        let positive = |name: &'static str, value: f64| {
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(PlanError::Number { name, value }) }
        };
        positive("device.bf16_tflops", self.device.bf16_tflops)?;
        positive("device.fp8_tflops", self.device.fp8_tflops.unwrap_or(1.0))?;
        positive("device.memory_gib", self.device.memory_gib)?;
        for (name, share) in [("dense_share", self.device.dense_share), ("expert_share", self.device.expert_share)] {
            positive(name, share)?;
            if share > 1.0 {
                return Err(PlanError::Number { name, value: share });
            }
        }
        for (name, value) in [("devices", self.devices), ("pipeline", self.pipeline), ("expert", self.expert)] {
            positive(name, value as f64)?;
        }
        let stage = self.devices / self.pipeline;
        if !self.devices.is_multiple_of(self.pipeline) || !stage.is_multiple_of(self.expert) {
            return Err(PlanError::Cut { devices: self.devices, pipeline: self.pipeline, expert: self.expert });
        }
        Ok(())
    }

    /// Copies of the model that see different data.
    pub fn data(&self) -> u64 {
        self.devices / self.pipeline
    }

    /// Share of the time that a stage waits for others, with `micro_batches` in flight for each copy; forward passes
    /// take one unit, backward passes two, of which one is the weights' own (V3 report, table 2).
    pub fn bubble(&self, micro_batches: f64) -> f64 {
        let stages = self.pipeline as f64;
        let units = match self.schedule {
            Schedule::OneForwardOneBackward => (stages - 1.0) * 3.0,
            Schedule::ZeroBubble => stages - 1.0,
            Schedule::DualPipe => (stages / 2.0 - 1.0).max(0.0) * 2.0,
        };
        units / (units + 3.0 * micro_batches.max(1.0))
    }
}
