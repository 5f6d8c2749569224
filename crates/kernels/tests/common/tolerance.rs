//! The bounds of `docs/NUMERICS.md`: the one place that tests read them from. A test (`numerics.rs`)
//! holds the document's table against [`ALL`].

/// How far a kernel's result may be from the exact one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    /// The kernel.
    pub(crate) name: &'static str,
    /// Units of 2^-24 however short the sum.
    pub(crate) base: f64,
    /// More of them for each element of the sum.
    pub(crate) per_element: f64,
    /// What the error is a share of.
    pub(crate) of: &'static str,
}

impl Bound {
    /// The largest error of a sum of `n` elements, as a share.
    pub(crate) fn share(self, n: usize) -> f64 {
        (self.base + self.per_element * n as f64) * 0.5f64.powi(24)
    }

    /// The row of the document's table.
    pub(crate) fn row(self) -> String {
        let Bound { name, base, per_element, of } = self;
        match per_element {
            0.0 => format!("| {name} | {base} | {of} |"),
            1.0 => format!("| {name} | {base} + n | {of} |"),
            _ => format!("| {name} | {base} + n / {} | {of} |", 1.0 / per_element),
        }
    }
}

const fn bound(name: &'static str, base: f64, per_element: f64, of: &'static str) -> Bound {
    Bound { name, base, per_element, of }
}

const SIXTEENTH: f64 = 1.0 / 16.0;

pub(crate) const MATMUL: Bound =
    bound("matmul, every format", 6.0, SIXTEENTH, "the sum of \\|x w\\| over the n inputs");
pub(crate) const TRANSPOSED: Bound =
    bound("matmul_heads, transposed", 1.0, 1.0, "the sum of \\|x w\\| over the n inputs");
pub(crate) const ATTENTION: Bound =
    bound("attend", 64.0, 0.5, "the largest \\|value\\| seen, with n key elements and \\|scores\\| up to 8");
/// 2^24 / 256: weights are off by 2^-9 each, and so is their sum; and the same as [`ATTENTION`].
pub(crate) const ATTENTION_BF16: Bound = bound(
    "attend in bfloat16, of the rounded factors",
    65_600.0,
    0.5,
    "the largest \\|value\\| seen, with n key elements and \\|scores\\| up to 8",
);
pub(crate) const INDEX_SCORES: Bound = bound(
    "index_scores",
    8.0,
    1.0,
    "the sum over heads of \\|weight scale q k\\|, with n heads and up to 128 elements",
);
/// 2^24 / 254, and some roundings.
pub(crate) const CACHE_INT8: Bound = bound("a row cached in int8", 66_060.0, 0.0, "the largest of its 64 elements");
pub(crate) const EXP: Bound = bound("exp", 4.0, 0.0, "the result (2 units in the last place)");
pub(crate) const SIGMOID: Bound = bound("sigmoid, silu", 8.0, 0.0, "the result");
pub(crate) const TANH: Bound = bound("tanh", 8.0, 0.0, "one");
pub(crate) const GELU: Bound = bound("gelu_tanh", 8.0, 0.0, "the larger of 1 and \\|x\\|");
pub(crate) const CLAMPED_SWIGLU: Bound = bound("clamped SwiGLU", 32.0, 0.0, "the result, with \\|gate\\| up to 12");
pub(crate) const SOFTMAX: Bound = bound("softmax", 16.0, SIXTEENTH, "the result, with differences up to 16");
pub(crate) const RMS_NORM: Bound = bound("rms_norm", 8.0, SIXTEENTH, "the result");
pub(crate) const LAYER_NORM: Bound =
    bound("layer_norm", 16.0, SIXTEENTH, "the largest \\|weight x\\| / deviation, plus \\|bias\\|");
pub(crate) const ROPE: Bound = bound("rope", 4.0, 0.0, "the pair's \\|u\\| + \\|v\\|");

/// All of them, in the order of the document.
pub(crate) const ALL: [Bound; 15] = [
    MATMUL,
    TRANSPOSED,
    ATTENTION,
    ATTENTION_BF16,
    INDEX_SCORES,
    CACHE_INT8,
    EXP,
    SIGMOID,
    TANH,
    GELU,
    CLAMPED_SWIGLU,
    SOFTMAX,
    RMS_NORM,
    LAYER_NORM,
    ROPE,
];

pub(crate) const TRAINING_PRODUCT: Bound = bound(
    "products, of the rounded factors",
    2.0,
    1.0,
    "the sum of \\|products\\| and \\|what was there\\|, over n terms",
);
pub(crate) const TRAINING_ROW: Bound =
    bound("gradients of row-wise operations and of the loss", 67.0, 0.0, "the largest gradient of the row");

/// Those of training, in the order of the document.
pub(crate) const TRAINING: [Bound; 2] = [TRAINING_PRODUCT, TRAINING_ROW];
