//! Quantised storage formats: blocks to 32-bit floats and back.
//!
//! Placeholders of the signatures that the rest of the crate builds on.

use crate::format::Format;

/// Reads one row: `bytes` are whole blocks of `format`, `out` gets one float per element.
///
/// # Panics
/// If `bytes` is not exactly `format.row_bytes(out.len())` long.
pub fn dequantize_row(_format: Format, _bytes: &[u8], _out: &mut [f32]) {
    unreachable!()
}

/// Writes one row of `format`; `out` is exactly `format.row_bytes(row.len())` long.
///
/// # Panics
/// If the sizes do not match.
pub fn quantize_row(_format: Format, _row: &[f32], _out: &mut [u8]) {
    unreachable!()
}

/// gpt-oss rows.
pub fn mxfp4_split_row(_blocks: &[u8], _scales: &[u8], _out: &mut [f32]) {
    unreachable!()
}
