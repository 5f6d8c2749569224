//! The bytes of a tensor: values of slots, rearranged as GGUF wants them, row by row in the format.
//!
//! No more than one expert's matrix and a few mebibytes of rows are held at a time. Rows that are
//! already in the wanted format are copied as they are.

use kernels::format::Format;
use kernels::quant::quantize_row;
use kernels::weight::Weight;
use rayon::prelude::*;

use super::ConvertError;
use super::plan::{Content, Edit, Planned};
use crate::checkpoint::GgufSink;
use crate::load::{Loader, Value};

/// Bytes of floats that are quantised between two writes.
const CHUNK_BYTES: usize = 8 << 20;

/// Writes the tensor that is due; `wrote` hears of every piece.
pub(super) fn write(
    planned: &Planned,
    loader: &mut Loader<'_>,
    sink: &mut GgufSink,
    wrote: &mut dyn FnMut(usize),
) -> Result<(), ConvertError> {
    let parameters = match &planned.content {
        Content::Table(values) => return append(planned, &le_bytes(values), sink, wrote),
        Content::Slots(parameters) => parameters,
    };
    for parameter in parameters {
        match (loader.value(parameter)?, planned.edit) {
            (Value::Vector(values), edit) => append(planned, &le_bytes(&edit.vector(values)), sink, wrote)?,
            (Value::KvUp(keys, _), Edit::KeyUp { .. }) => write_rows(planned, &keys, Edit::None, sink, wrote)?,
            (Value::KvUp(_, values), Edit::ValueUp { .. }) => write_rows(planned, &values, Edit::None, sink, wrote)?,
            (Value::Matrix(both), Edit::KeyUp { heads, nope, v }) => {
                let keys = transposed_keys(&both, heads, nope, v);
                write_rows(planned, &keys, Edit::None, sink, wrote)?;
            }
            (Value::Matrix(weight), edit) => write_rows(planned, &weight, edit, sink, wrote)?,
            (Value::KvUp(..), edit) => unreachable!("{edit:?} of a split projection"),
        }
    }
    Ok(())
}

fn append(
    planned: &Planned,
    bytes: &[u8],
    sink: &mut GgufSink,
    wrote: &mut dyn FnMut(usize),
) -> Result<(), ConvertError> {
    sink.append(&planned.name, bytes)?;
    wrote(bytes.len());
    Ok(())
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The key half of a latent's up projection, each head's rows turned into columns: `[heads * rank, nope]`.
fn transposed_keys(both: &Weight, heads: usize, nope: usize, v: usize) -> Weight {
    let rank = both.cols();
    let mut out = vec![0.0; heads * rank * nope];
    out.par_chunks_mut((rank * nope).max(1)).enumerate().for_each_init(
        || vec![0.0; rank],
        |row, (head, out)| {
            for d in 0..nope {
                both.dequantize_row(head * (nope + v) + d, row);
                row.iter().enumerate().for_each(|(r, &value)| out[r * nope + d] = value);
            }
        },
    );
    Weight::from_f32(heads * rank, nope, out)
}

fn write_rows(
    planned: &Planned,
    weight: &Weight,
    edit: Edit,
    sink: &mut GgufSink,
    wrote: &mut dyn FnMut(usize),
) -> Result<(), ConvertError> {
    let (format, cols) = (planned.format, weight.cols());
    let rows = edit.rows(weight.rows());
    let row_bytes = format.row_bytes(cols).unwrap_or_else(|| unreachable!("{format} was chosen for rows of {cols}"));
    if row_bytes == 0 {
        return Ok(());
    }
    let chunk_rows = (CHUNK_BYTES / (cols * 4)).max(1);
    let mut bytes = Vec::new();
    for start in (0..rows).step_by(chunk_rows) {
        bytes.resize(chunk_rows.min(rows - start) * row_bytes, 0);
        bytes.par_chunks_mut(row_bytes).enumerate().try_for_each_init(
            || vec![0.0; cols],
            |floats, (i, out)| {
                let row = edit.source_row(start + i);
                write_row(weight, row, format, floats, out).map_err(|source| ConvertError::Value {
                    tensor: planned.name.clone(),
                    row: start + i,
                    source,
                })
            },
        )?;
        append(planned, &bytes, sink, wrote)?;
    }
    Ok(())
}

fn write_row(
    weight: &Weight,
    row: usize,
    format: Format,
    floats: &mut [f32],
    out: &mut [u8],
) -> Result<(), kernels::quant::QuantizeError> {
    match weight.row_blocks(row) {
        Some(stored) if weight.format() == format => {
            out.copy_from_slice(stored);
            Ok(())
        }
        _ => {
            weight.dequantize_row(row, floats);
            quantize_row(format, floats, out)
        }
    }
}
