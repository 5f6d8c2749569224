//! The same source compiled for several instruction sets.
//!
//! A function with `#[target_feature]` inlines the portable source, and the compiler vectorises it
//! for that instruction set. The results do not differ; only the speed does.

use crate::format::Format;
use crate::isa::Isa;

/// Defines a function that checks the instruction set and calls `$inline` compiled for it.
macro_rules! compiled_for_isa {
    ($name:ident = $inline:path, ($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        pub(crate) fn $name(isa: Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                $inline($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                $inline($($arg),*)
            }
            assert!(isa.is_available(), "{} code on a processor without it", isa.name());
            match isa {
                // NEON is the baseline of its architecture.
                Isa::Portable | Isa::Neon => $inline($($arg),*),
                // SAFETY: the processor was just found to have the instruction set.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Amx => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx2 | Isa::Avx512 | Isa::Amx => unreachable!("sets of other processors are refused above"),
            }
        }
    };
}
pub(crate) use compiled_for_isa;

compiled_for_isa!(dequantize_row = super::dequantize_row_inline, (format: Format, bytes: &[u8], out: &mut [f32]));
compiled_for_isa!(quantize_row = super::encode::quantize_row_inline,
    (format: Format, row: &[f32], out: &mut [u8]) -> Result<(), usize>);
compiled_for_isa!(f8e4m3_blocks_row = super::f8e4m3_blocks_row_inline, (bytes: &[u8], scales: &[f32], out: &mut [f32]));
compiled_for_isa!(mxfp4_split_row = super::mxfp4_split_row_inline, (blocks: &[u8], scales: &[u8], out: &mut [f32]));
