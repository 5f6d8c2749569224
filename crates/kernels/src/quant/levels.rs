//! The same source compiled for several instruction sets.
//!
//! A function with `#[target_feature]` inlines the portable source, and the compiler vectorises it
//! for that instruction set. The results do not differ; only the speed does.

use crate::format::Format;

/// An instruction set that the kernels of this module are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the compiler's target guarantees (SSE2 on x86-64, NEON on aarch64).
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, beside all of [`Level::Avx2`].
    Avx512,
}

impl Level {
    /// Every level, slowest first.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The best level that this machine supports.
    pub fn detect() -> Level {
        if Level::Avx512.is_supported() {
            Level::Avx512
        } else if Level::Avx2.is_supported() {
            Level::Avx2
        } else {
            Level::Portable
        }
    }

    /// Whether this machine can run the level. (Detection happens once; this reads its result.)
    #[cfg(target_arch = "x86_64")]
    pub fn is_supported(self) -> bool {
        use std::is_x86_feature_detected as has;
        match self {
            Level::Portable => true,
            Level::Avx2 => has!("avx2") && has!("fma") && has!("f16c"),
            Level::Avx512 => {
                Level::Avx2.is_supported()
                    && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512dq")
                    && has!("avx512vl")
            }
        }
    }

    /// Whether this machine can run the level.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_supported(self) -> bool {
        self == Level::Portable
    }
}

/// Defines a function that checks the level and calls `$inline` compiled for it.
macro_rules! compiled_for_levels {
    ($name:ident = $inline:path, ($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        pub(super) fn $name(level: Level, $($arg: $type),*) $(-> $result)? {
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
            assert!(level.is_supported(), "this machine does not support {level:?}");
            match level {
                Level::Portable => $inline($($arg),*),
                // SAFETY: the machine was just found to have the features of the level.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("unsupported levels are refused above"),
            }
        }
    };
}

compiled_for_levels!(dequantize_row = super::dequantize_row_inline, (format: Format, bytes: &[u8], out: &mut [f32]));
compiled_for_levels!(quantize_row = super::encode::quantize_row_inline,
    (format: Format, row: &[f32], out: &mut [u8]) -> Result<(), usize>);
compiled_for_levels!(f8e4m3_blocks_row = super::f8e4m3_blocks_row_inline, (bytes: &[u8], scales: &[f32], out: &mut [f32]));
compiled_for_levels!(mxfp4_split_row = super::mxfp4_split_row_inline, (blocks: &[u8], scales: &[u8], out: &mut [f32]));
