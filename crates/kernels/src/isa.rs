//! Which instruction set the kernels use: detected once at start-up.
//!
//! `FATHOM_ISA=portable|avx2|avx512|amx|neon` forces one, for tests and for comparing. A forced set that the
//! processor lacks is an error, never a silent fallback.

use std::sync::OnceLock;

/// An instruction set that the kernels have code for, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust: the specification of every other path.
    Portable,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ and VL (x86-64-v4).
    Avx512,
    /// AVX-512 with VNNI and BF16, and the tiles of AMX (TILE, INT8 and BF16).
    Amx,
    /// 64-bit Arm's vectors, part of that architecture.
    Neon,
}

/// Why the instruction set asked for by `FATHOM_ISA` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsaError {
    message: String,
}

impl std::fmt::Display for IsaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for IsaError {}

impl Isa {
    /// Every instruction set, in rising order.
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx, Isa::Neon];

    /// The name that `FATHOM_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                Isa::Avx512.is_available()
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512bf16")
                    && crate::amx::is_available()
            }
            Isa::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Those that this processor has, in rising order: what a kernel test runs over.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The best one, or the one that `FATHOM_ISA` names.
    pub fn detect() -> Result<Isa, IsaError> {
        match std::env::var("FATHOM_ISA") {
            Err(_) => Ok(Isa::available().last().unwrap_or(Isa::Portable)),
            Ok(name) => Isa::forced(&name),
        }
    }

    fn forced(name: &str) -> Result<Isa, IsaError> {
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| IsaError {
            message: format!("FATHOM_ISA is \"{name}\"; it takes portable, avx2, avx512, amx or neon"),
        })?;
        if isa.is_available() {
            Ok(isa)
        } else {
            Err(IsaError { message: format!("FATHOM_ISA is \"{name}\", but this processor does not have it") })
        }
    }
}

/// The instruction set of this process, detected on first use.
///
/// # Panics
/// If `FATHOM_ISA` names one that cannot be used; programs call [`Isa::detect`] first and report it.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    *CHOSEN.get_or_init(|| match Isa::detect() {
        Ok(isa) => isa,
        Err(error) => panic!("{error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_name_is_taken_or_refused() {
        assert_eq!(Isa::forced("portable"), Ok(Isa::Portable));
        let error = Isa::forced("mmx").unwrap_err().to_string();
        assert_eq!(error, "FATHOM_ISA is \"mmx\"; it takes portable, avx2, avx512, amx or neon");
    }

    #[test]
    fn portable_is_always_there() {
        assert_eq!(Isa::available().next(), Some(Isa::Portable));
    }
}
