//! Sixteen floats at once: the one vector that the float kernels are written in.
//!
//! An algorithm is written once over [`Lanes`] and compiled for each instruction set: one 512-bit
//! register, two of 256 bits, four of 128, or a plain array. A sum over many elements keeps sixteen partial sums
//! (element `i` goes to lane `i % 16`) and adds the lanes as a fixed tree, so AVX2, AVX-512 and
//! NEON give the same bits. The portable version multiplies and adds with two roundings where the others fuse.

/// A register: some of the sixteen lanes, as many as are one vector of the instruction set.
///
/// # Safety
/// As [`Lanes`], for `WIDTH` elements.
pub(crate) trait Part: Copy {
    /// Lanes in a part; divides sixteen.
    const WIDTH: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * b + c`, with the roundings of [`Lanes::mul_add`].
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Sixteen `f32`.
///
/// # Safety
/// Implementations may use instructions of their set: callers make sure that the processor has it
/// (dispatch does, once) and inline all the way into a function that enables it. Pointers are valid
/// for sixteen elements; no alignment is needed.
pub(crate) trait Lanes: Copy {
    /// What a product keeps its partial sums in.
    type Part: Part;
    /// Weight rows times input rows whose partial sums fit into the registers, one part of each.
    const TILE: (usize, usize);
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * b + c`
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// Lanes added as the tree ((0+8)+(4+12)) + ((2+10)+(6+14)) + the same of the odd lanes.
    unsafe fn sum(self) -> f32;
}

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 16]);

/// Four floats: what every instruction set with vectors has.
#[derive(Clone, Copy)]
pub(crate) struct PortablePart([f32; 4]);

impl Part for PortablePart {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        PortablePart([0.0; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for four elements, the trait's contract.
        PortablePart(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid for four elements, the trait's contract.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        PortablePart(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
}

impl Lanes for Portable {
    type Part = PortablePart;
    const TILE: (usize, usize) = (4, 2);
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 16])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for sixteen elements, the trait's contract.
        Portable(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid for sixteen elements, the trait's contract.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let a: [f32; 8] = std::array::from_fn(|i| self.0[i] + self.0[i + 8]);
        let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (b[0] + b[2]) + (b[1] + b[3])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Lanes, Part};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    /// Eight lanes to one, the lower half of the tree in `Lanes::sum`.
    #[inline(always)]
    unsafe fn sum8(a: __m256) -> f32 {
        // SAFETY: inside functions that enable AVX2, the trait's contract.
        unsafe {
            let b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let c = _mm_add_ps(b, _mm_movehl_ps(b, b));
            let d = _mm_add_ss(c, _mm_shuffle_ps::<1>(c, c));
            _mm_cvtss_f32(d)
        }
    }

    // SAFETY (all blocks below): the processor has the instruction set and pointers are valid for
    // sixteen elements, both by the trait's contract.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Part for __m256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
    }

    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Part for __m512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
    }

    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx2 {
        type Part = __m256;
        const TILE: (usize, usize) = (4, 3);
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Avx2(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { Avx2(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { sum8(_mm256_add_ps(self.0, self.1)) }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx512 {
        type Part = __m512;
        const TILE: (usize, usize) = (6, 4);
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Avx512(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Avx512(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { Avx512(_mm512_fmadd_ps(self.0, b.0, c.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let upper = _mm512_extractf32x8_ps::<1>(self.0);
                sum8(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::Neon;

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{Lanes, Part};
    use std::arch::aarch64::*;

    /// Four registers of four lanes; every 64-bit Arm processor has them.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon([float32x4_t; 4]);

    // SAFETY (all blocks below): NEON is part of the architecture, and pointers are valid for the elements
    // of the type, by the trait's contract.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Part for float32x4_t {
        const WIDTH: usize = 4;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { vdupq_n_f32(0.0) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { vst1q_f32(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { vfmaq_f32(c, self, b) }
        }
    }

    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Neon {
        type Part = float32x4_t;
        const TILE: (usize, usize) = (6, 4);
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Neon([vdupq_n_f32(value); 4]) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Neon(std::array::from_fn(|i| vld1q_f32(from.add(4 * i)))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { (0..4).for_each(|i| vst1q_f32(to.add(4 * i), self.0[i])) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { Neon(std::array::from_fn(|i| vfmaq_f32(c.0[i], self.0[i], b.0[i]))) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let [a, b, c, d] = self.0;
                let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
                let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
                vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
            }
        }
    }
}

/// Runs `$body` compiled for the instruction set `$isa`, with the type `$v` bound to its lanes.
///
/// Defines one function per set around the same generic `#[inline(always)]` function.
macro_rules! dispatch {
    ($isa:expr, $f:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function is only called where the set was detected (below).
            unsafe { $f::<$crate::lanes::Avx2>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function is only called where the set was detected (below).
            unsafe { $f::<$crate::lanes::Avx512>($($arg),*) }
        }
        match $isa {
            // SAFETY: the portable lanes need nothing of the processor.
            $crate::isa::Isa::Portable => unsafe { $f::<$crate::lanes::Portable>($($arg),*) },
            // SAFETY: an `Isa` other than portable exists only where `Isa::is_available` held.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512 | $crate::isa::Isa::Amx => unsafe { avx512($($arg),*) },
            // SAFETY: NEON is part of the architecture.
            #[cfg(target_arch = "aarch64")]
            $crate::isa::Isa::Neon => unsafe { $f::<$crate::lanes::Neon>($($arg),*) },
            #[allow(unreachable_patterns)] // which ones are left depends on the architecture
            other => unreachable!("{} is not of this processor", other.name()),
        }
    }};
}
pub(crate) use dispatch;
