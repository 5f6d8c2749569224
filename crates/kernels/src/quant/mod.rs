//! Quantised storage formats: blocks to 32-bit floats and back.
//!
//! [`dequantize_row`] gives exactly the floats that ggml's reference gives (its `dequantize_row_*`,
//! and the `gguf` Python package): the expression and its order of multiplications stand at each
//! block function. [`quantize_row`] is ggml's reference for the simple formats and a search for the
//! least squared error for the others.
//!
//! Each block function is written once, without branches that depend on the data, over arrays of
//! fixed size, and is inlined into callers that are compiled for an instruction set ([`Isa`]). Rust
//! contracts no floating-point operations, so all of them give the same bits. The payload of a NaN
//! is the one thing that is not specified.

mod codebook;
pub(crate) mod compiled;
mod encode;
mod encode_super;
mod float;
mod simple;
mod super_block;

/// What integer products read of the formats themselves.
pub(crate) mod int {
    pub(crate) use super::codebook::{E2M1, IQ4};
    pub(crate) use super::float::{e8m0_half_to_f32, f16_at};
}

use crate::format::Format;
use crate::isa::{Isa, isa};

/// Applies a block function to each block of a row. A macro and not a function that takes a function:
/// the latter's call would go through a copy that is compiled for the portable instruction set.
macro_rules! blocks {
    ($bytes:ident, $out:ident, $block:path) => {
        for (bytes, out) in $bytes.as_chunks().0.iter().zip($out.as_chunks_mut().0) {
            $block(bytes, out);
            one_block_at_a_time();
        }
    };
}

/// Why a row cannot be written in a format. Nothing of `out` is to be used then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuantizeError {
    /// A NaN or an infinity, which no format but a plain float can hold and no weight should be.
    NonFinite {
        /// Position in the row.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// A finite value beyond what the format can hold: it (or its block's 16-bit scale) would
    /// become an infinity.
    OutOfRange {
        /// Position in the row.
        index: usize,
        /// The value there.
        value: f32,
        /// The format that cannot hold it.
        format: Format,
    },
}

impl std::fmt::Display for QuantizeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QuantizeError::NonFinite { index, value } => {
                write!(f, "element {index} of the row is {value}, which is not a finite number")
            }
            QuantizeError::OutOfRange { index, value, format } => {
                write!(f, "element {index} of the row is {value:e}, too large to be stored as {format}")
            }
        }
    }
}

impl std::error::Error for QuantizeError {}

/// Reads one row: `bytes` are whole blocks of `format`, `out` gets one float per element.
///
/// # Panics
/// If `bytes` is not exactly `format.row_bytes(out.len())` long.
pub fn dequantize_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    dequantize_row_with(isa(), format, bytes, out);
}

/// [`dequantize_row`] compiled for the given instruction set. The bits do not depend on it.
///
/// # Panics
/// If the sizes do not match, or the processor does not have the instruction set.
pub fn dequantize_row_with(isa: Isa, format: Format, bytes: &[u8], out: &mut [f32]) {
    compiled::dequantize_row(isa, format, bytes, out);
}

/// [`dequantize_row`] for callers inside this crate that are themselves compiled for an instruction
/// set: it is inlined there and vectorised for it.
///
/// # Panics
/// If the sizes do not match.
#[inline(always)]
pub(crate) fn dequantize_row_inline(format: Format, bytes: &[u8], out: &mut [f32]) {
    check_size(format, out.len(), bytes.len());
    dequantize_blocks_inline(format, bytes, out);
}

/// [`dequantize_row_inline`] of sizes that were checked: whole blocks, as many as `out` holds.
#[inline(always)]
pub(crate) fn dequantize_blocks_inline(format: Format, bytes: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => float::f32_row(bytes, out),
        Format::F16 => float::f16_row(bytes, out),
        Format::BF16 => float::bf16_row(bytes, out),
        Format::F8E4M3 => float::f8e4m3_row(bytes, out),
        Format::Q4_0 => blocks!(bytes, out, simple::q4_0),
        Format::Q4_1 => blocks!(bytes, out, simple::q4_1),
        Format::Q5_0 => blocks!(bytes, out, simple::q5_0),
        Format::Q5_1 => blocks!(bytes, out, simple::q5_1),
        Format::Q8_0 => blocks!(bytes, out, simple::q8_0),
        Format::Q2K => blocks!(bytes, out, super_block::q2_k),
        Format::Q3K => blocks!(bytes, out, super_block::q3_k),
        Format::Q4K => blocks!(bytes, out, super_block::q4_k),
        Format::Q5K => blocks!(bytes, out, super_block::q5_k),
        Format::Q6K => blocks!(bytes, out, super_block::q6_k),
        Format::Iq4Nl => blocks!(bytes, out, codebook::iq4_nl),
        Format::Iq4Xs => blocks!(bytes, out, codebook::iq4_xs),
        Format::Mxfp4 => blocks!(bytes, out, codebook::mxfp4),
    }
}

/// Writes one row of `format`; `out` is exactly `format.row_bytes(row.len())` long. Deterministic:
/// the bytes depend on the block's values alone, not on the machine.
///
/// - F32, F16, BF16: to nearest, ties to even. F8E4M3: the same, and saturating at 448.
/// - Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: ggml's reference quantisers.
/// - Q2_K to Q6_K, IQ4_NL, IQ4_XS: scales (and minima) searched for the least squared error.
/// - MXFP4: the scale of the OCP specification (6.3), elements to the nearest, ties towards zero.
///
/// # Errors
/// A value that is not finite, or that would become an infinity (see [`QuantizeError`]).
///
/// # Panics
/// If the sizes do not match.
pub fn quantize_row(format: Format, row: &[f32], out: &mut [u8]) -> Result<(), QuantizeError> {
    quantize_row_with(isa(), format, row, out)
}

/// [`quantize_row`] compiled for the given instruction set. The bytes do not depend on it.
///
/// # Errors
/// As [`quantize_row`].
///
/// # Panics
/// If the sizes do not match, or the processor does not have the instruction set.
pub fn quantize_row_with(isa: Isa, format: Format, row: &[f32], out: &mut [u8]) -> Result<(), QuantizeError> {
    check_size(format, row.len(), out.len());
    if let Some(index) = row.iter().position(|x| !x.is_finite()) {
        return Err(QuantizeError::NonFinite { index, value: row[index] });
    }
    compiled::quantize_row(isa, format, row, out).map_err(|index| QuantizeError::OutOfRange {
        index,
        value: row[index],
        format,
    })
}

/// Reads one row of an FP8 (E4M3) matrix whose scales stand beside it, one for each block of 128
/// rows by 128 columns, as in DeepSeek V3's checkpoints (`weight_scale_inv`). `scales` is the row
/// of scales that this row of the matrix lies in; `out[i] = scales[i / 128] * e4m3(bytes[i])`.
/// The last block may be shorter.
///
/// # Panics
/// If `bytes` and `out` differ in length, or `scales` is not one for each 128 columns begun.
pub fn f8e4m3_blocks_row(bytes: &[u8], scales: &[f32], out: &mut [f32]) {
    compiled::f8e4m3_blocks_row(isa(), bytes, scales, out);
}

/// [`f8e4m3_blocks_row`], inlined into a caller that is compiled for an instruction set.
#[inline(always)]
pub(crate) fn f8e4m3_blocks_row_inline(bytes: &[u8], scales: &[f32], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len(), "FP8 row: bytes and floats differ in number");
    assert_eq!(scales.len(), out.len().div_ceil(128), "FP8 row: one scale for each 128 columns");
    for ((bytes, &scale), out) in bytes.chunks(128).zip(scales).zip(out.chunks_mut(128)) {
        float::f8e4m3_scaled(bytes, scale, out);
    }
}

/// `out[i] = scale * e4m3(bytes[i])`, inlined into a caller that is compiled for an instruction set.
#[inline(always)]
pub(crate) fn f8e4m3_scaled_inline(bytes: &[u8], scale: f32, out: &mut [f32]) {
    float::f8e4m3_scaled(bytes, scale, out);
}

/// Reads one row of MXFP4 in Hugging Face's layout for gpt-oss: `blocks` has 16 bytes for each 32
/// elements, byte `j` with element `2j` in its low nibble and `2j + 1` in its high one; `scales`
/// has one E8M0 byte for each 32 elements. (GGUF orders the nibbles otherwise: [`Format::Mxfp4`].)
///
/// Values are those of the OCP specification: negative zero keeps its sign, and the scale 255 is
/// NaN, which makes its whole block NaN.
///
/// # Panics
/// If `out` is not 32 floats for each scale and `blocks` not 16 bytes for each.
pub fn mxfp4_split_row(blocks: &[u8], scales: &[u8], out: &mut [f32]) {
    compiled::mxfp4_split_row(isa(), blocks, scales, out);
}

/// [`mxfp4_split_row`], inlined into a caller that is compiled for an instruction set.
#[inline(always)]
pub(crate) fn mxfp4_split_row_inline(blocks: &[u8], scales: &[u8], out: &mut [f32]) {
    assert_eq!(Some(out.len()), scales.len().checked_mul(32), "MXFP4 row: 32 floats for each scale");
    assert_eq!(blocks.len(), scales.len() * 16, "MXFP4 row: 16 bytes for each scale");
    let (blocks, outs) = (blocks.as_chunks::<16>().0, out.as_chunks_mut::<32>().0);
    for ((block, &scale), out) in blocks.iter().zip(scales).zip(outs) {
        codebook::mxfp4_split(block, scale, out);
        one_block_at_a_time();
    }
}

/// Keeps the compiler from vectorising across blocks, lane by lane from several blocks at once, as it
/// does for AVX-512 and becomes several times slower. No instruction comes of it.
#[inline(always)]
fn one_block_at_a_time() {
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

#[inline(always)]
fn check_size(format: Format, elements: usize, bytes: usize) {
    if format.row_bytes(elements) != Some(bytes) {
        wrong_size(format, elements, bytes);
    }
}

#[cold]
fn wrong_size(format: Format, elements: usize, bytes: usize) -> ! {
    panic!("a {format} row of {elements} elements is not {bytes} bytes long");
}
