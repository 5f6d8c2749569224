//! Numbers in, numbers out.
//!
//! Matrix products over every stored weight format, attention, norms, rotary embedding, the thread
//! pool and the memory-mapped file. This crate knows nothing of models, files' meaning or
//! configuration, and it is the only crate with `unsafe`.
//!
//! The portable version of a kernel is its specification; versions for an instruction set give the
//! same integers and floats within the bounds of `docs/NUMERICS.md`. Each output element is reduced
//! in an order that depends only on its own inputs: never on the number of rows, threads or chunks.

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod attention_backward;
mod bf16;
pub mod bytes;
pub mod draw;
pub mod format;
pub mod gemm;
mod int;
pub mod isa;
mod lanes;
pub mod matmul;
pub mod measure;
pub mod ops;
pub mod pool;
pub mod quant;
mod tile;
pub mod train;
pub mod weight;
