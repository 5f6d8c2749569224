//! The storage formats of weights: how many elements a block holds and how many bytes it takes.
//!
//! A row of a matrix is a whole number of blocks; blocks do not cross rows. The layouts are those
//! of GGUF (ggml's `block_*` structures), which are also the only definition of these formats.

/// How the elements of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the formats' own
pub enum Format {
    F32,
    F16,
    BF16,
    /// OCP FP8 E4M3 (no infinities; 0x7f and 0xff are NaN). Scales, if any, are beside the bytes.
    F8E4M3,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    /// OCP MXFP4 as GGUF stores it: one E8M0 scale byte, then 32 E2M1 values in 16 bytes, low
    /// nibbles first (elements 0..16), then high nibbles (16..32).
    Mxfp4,
}

impl Format {
    /// Every format, in the order of the declaration.
    pub const ALL: [Format; 17] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::F8E4M3,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
        Format::Q2K,
        Format::Q3K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
        Format::Iq4Nl,
        Format::Iq4Xs,
        Format::Mxfp4,
    ];

    /// (elements per block, bytes per block)
    pub const fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::BF16 => (1, 2),
            Format::F8E4M3 => (1, 1),
            Format::Q4_0 | Format::Iq4Nl => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q8_0 => (32, 34),
            Format::Q2K => (256, 84),
            Format::Q3K => (256, 110),
            Format::Q4K => (256, 144),
            Format::Q5K => (256, 176),
            Format::Q6K => (256, 210),
            Format::Iq4Xs => (256, 136),
            Format::Mxfp4 => (32, 17),
        }
    }

    /// Bytes of a row of `cols` elements; `None` if the row is not a whole number of blocks or the
    /// size does not fit in memory's address range.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let (elements, bytes) = self.block();
        if !cols.is_multiple_of(elements) {
            return None;
        }
        (cols / elements).checked_mul(bytes)
    }

    /// Whether a block is a single number (no quantisation scale of its own).
    pub const fn is_float(self) -> bool {
        matches!(self, Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3)
    }

    /// The name in lower case, as commands print and read it (`q4_k`, `iq4_nl`, `bf16`).
    pub const fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::BF16 => "bf16",
            Format::F8E4M3 => "f8_e4m3",
            Format::Q4_0 => "q4_0",
            Format::Q4_1 => "q4_1",
            Format::Q5_0 => "q5_0",
            Format::Q5_1 => "q5_1",
            Format::Q8_0 => "q8_0",
            Format::Q2K => "q2_k",
            Format::Q3K => "q3_k",
            Format::Q4K => "q4_k",
            Format::Q5K => "q5_k",
            Format::Q6K => "q6_k",
            Format::Iq4Nl => "iq4_nl",
            Format::Iq4Xs => "iq4_xs",
            Format::Mxfp4 => "mxfp4",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
