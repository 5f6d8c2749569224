//! The micro-kernels: a tile of rows by panels, its sums in registers.
//!
//! One step multiplies one input of each row (a float, or a pair of bfloat16) with sixteen outputs of
//! each panel. A tile is written once over [`Micro`] and compiled for each instruction set. (`amx` reads the
//! same panels.)

/// One step of a panel: sixteen floats, or sixteen pairs of bfloat16 with the even input in the lower
/// half.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Step(pub(crate) [u32; 16]);

/// What becomes of a tile's sums.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They begin at zero and are stored.
    Begin,
    /// They go on from what was stored.
    Continue,
    /// They begin at zero and are added to what is there.
    Add,
}

/// Sixteen sums and the arithmetic of a step.
///
/// # Safety
/// Implementations may use instructions of their set: callers make sure that the processor has it
/// and inline all the way into a function that enables it. Pointers to floats are valid for sixteen.
pub(crate) trait Micro {
    /// Sixteen sums.
    type Sums: Copy;
    /// A step of a panel.
    type Weights: Copy;
    /// An input, or pair of inputs, in all lanes.
    type Input: Copy;
    /// Inputs in a step.
    const STEP: usize;
    /// The most rows and panels of a tile.
    const TILE: (usize, usize);
    unsafe fn zero() -> Self::Sums;
    unsafe fn load(from: *const f32) -> Self::Sums;
    unsafe fn store(sums: Self::Sums, to: *mut f32);
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums;
    unsafe fn weights(from: *const Step) -> Self::Weights;
    unsafe fn input(from: *const u32) -> Self::Input;
    /// Sums with the products of a step added.
    unsafe fn step(sums: Self::Sums, input: Self::Input, weights: Self::Weights) -> Self::Sums;
    /// A step from two rows of sixteen floats (the second is not read where a step is one input).
    unsafe fn pair(even: *const f32, odd: *const f32, to: *mut Step);
    /// Thirty-two floats as inputs of a row, one after the other.
    unsafe fn inputs(from: *const f32, to: *mut u32);
}

/// Inputs of rows: `row` and `step` are the distances from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Inputs {
    pub(crate) start: *const u32,
    pub(crate) row: usize,
    pub(crate) step: usize,
}

/// Panels, `stride` steps apart.
#[derive(Clone, Copy)]
pub(crate) struct PanelsAt {
    pub(crate) start: *const Step,
    pub(crate) stride: usize,
}

/// The outputs of a tile: rows `stride` apart, of which `rows` and `cols` exist.
#[derive(Clone, Copy)]
pub(crate) struct Outputs {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// `M` rows times `P` panels over `steps` steps.
///
/// # Safety
/// The processor has `V`'s instruction set; the inputs and panels are valid for these rows, panels and
/// steps, and the outputs for the rows and columns that exist.
#[inline(always)]
pub(crate) unsafe fn tile<V: Micro, const M: usize, const P: usize>(
    steps: usize,
    x: Inputs,
    w: PanelsAt,
    out: Outputs,
    mode: Mode,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut sums = [[V::zero(); P]; M];
        // Asked for now, used when the sums are finished.
        (0..M).for_each(|r| (0..P).for_each(|p| fetch(out.start.wrapping_add(r * out.stride + p * 16))));
        if mode == Mode::Continue {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (p, sums) in sums.iter_mut().enumerate() {
                    *sums = load_part::<V>(out, r, p);
                }
            }
        }
        let (mut input, mut panel) = (x.start, w.start);
        for _ in 0..steps {
            let mut weights = [V::weights(panel); P];
            for p in 1..P {
                weights[p] = V::weights(panel.wrapping_add(p * w.stride));
            }
            for r in 0..M {
                let input = V::input(input.wrapping_add(r * x.row));
                for p in 0..P {
                    sums[r][p] = V::step(sums[r][p], input, weights[p]);
                }
            }
            input = input.wrapping_add(x.step);
            panel = panel.wrapping_add(1);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, &sums) in sums.iter().enumerate() {
                let sums = if mode == Mode::Add { V::add(load_part::<V>(out, r, p), sums) } else { sums };
                store_part::<V>(out, r, p, sums);
            }
        }
    }
}

/// The stored outputs of row `r` and panel `p`; zeros for those that do not exist.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn load_part<V: Micro>(out: Outputs, r: usize, p: usize) -> V::Sums {
    let from = out.start.wrapping_add(r * out.stride + p * 16);
    // SAFETY: only outputs that exist are read.
    unsafe {
        if r < out.rows && (p + 1) * 16 <= out.cols {
            return V::load(from);
        }
        let mut part = [0.0f32; 16];
        if r < out.rows && p * 16 < out.cols {
            std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), out.cols - p * 16);
        }
        V::load(part.as_ptr())
    }
}

/// Stores those outputs of row `r` and panel `p` that exist.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn store_part<V: Micro>(out: Outputs, r: usize, p: usize, sums: V::Sums) {
    let to = out.start.wrapping_add(r * out.stride + p * 16);
    // SAFETY: only outputs that exist are written.
    unsafe {
        if r < out.rows && (p + 1) * 16 <= out.cols {
            return V::store(sums, to);
        }
        if r < out.rows && p * 16 < out.cols {
            let mut part = [0.0f32; 16];
            V::store(sums, part.as_mut_ptr());
            std::ptr::copy_nonoverlapping(part.as_ptr(), to, out.cols - p * 16);
        }
    }
}

/// Asks for the cache line of `at` to be brought to the first-level cache. Changes nothing but time.
#[inline(always)]
pub(crate) fn fetch(at: *const f32) {
    // SAFETY: SSE, which every x86-64 processor has; a prefetch reads nothing.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for the cache lines of `row` to be brought to the second-level cache. Changes nothing but time.
#[inline(always)]
pub(crate) fn fetch_row(row: &[f32]) {
    // SAFETY: SSE, which every x86-64 processor has; a prefetch reads nothing.
    #[cfg(target_arch = "x86_64")]
    (0..row.len()).step_by(16).for_each(|i| unsafe {
        let at = row.as_ptr().wrapping_add(i).cast();
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at);
    });
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// To the nearest bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// The float that a bfloat16 stands for.
#[inline(always)]
pub(crate) fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[inline(always)]
fn pair_of(even: f32, odd: f32) -> u32 {
    u32::from(f32_to_bf16(even)) | u32::from(f32_to_bf16(odd)) << 16
}

/// # Safety
/// Sixteen floats at `even`.
#[inline(always)]
unsafe fn one_input(even: *const f32, to: *mut Step) {
    // SAFETY: sixteen floats (the caller's promise), and a step is sixteen words.
    unsafe { std::ptr::copy_nonoverlapping(even.cast::<u32>(), to.cast::<u32>(), 16) };
}

/// # Safety
/// Sixteen floats at `even` and at `odd`.
#[inline(always)]
unsafe fn pair_of_inputs(even: *const f32, odd: *const f32, to: *mut Step) {
    // SAFETY: the caller's promise.
    let (even, odd) = unsafe { (even.cast::<[f32; 16]>().read_unaligned(), odd.cast::<[f32; 16]>().read_unaligned()) };
    let step = Step(std::array::from_fn(|i| pair_of(even[i], odd[i])));
    // SAFETY: the caller's promise.
    unsafe { to.write(step) };
}

/// # Safety
/// Thirty-two floats at `from`, room for sixteen words at `to`.
#[inline(always)]
unsafe fn row_of_pairs(from: *const f32, to: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let from = from.cast::<[f32; 32]>().read_unaligned();
        let pairs: [u32; 16] = std::array::from_fn(|i| pair_of(from[2 * i], from[2 * i + 1]));
        to.cast::<[u32; 16]>().write_unaligned(pairs);
    }
}

/// # Safety
/// Thirty-two floats at `from`, room for thirty-two words at `to`.
#[inline(always)]
unsafe fn row_of_floats(from: *const f32, to: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u32>(), to, 32) };
}

/// Plain Rust: the specification. Products and sums are rounded one after the other.
pub(crate) struct PortableF32;
/// The same with factors in bfloat16, whose products are exact.
pub(crate) struct PortableBf16;

macro_rules! portable_sums {
    () => {
        type Sums = [f32; 16];
        const TILE: (usize, usize) = (2, 1);
        #[inline(always)]
        unsafe fn zero() -> [f32; 16] {
            [0.0; 16]
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> [f32; 16] {
            // SAFETY: sixteen floats, the trait's contract.
            unsafe { from.cast::<[f32; 16]>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn store(sums: [f32; 16], to: *mut f32) {
            // SAFETY: sixteen floats, the trait's contract.
            unsafe { to.cast::<[f32; 16]>().write_unaligned(sums) }
        }
        #[inline(always)]
        unsafe fn add(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|i| a[i] + b[i])
        }
    };
}

/// The parts of a micro-kernel in f32 that are the same for every instruction set.
macro_rules! f32_packing {
    () => {
        const STEP: usize = 1;
        #[inline(always)]
        unsafe fn pair(even: *const f32, _: *const f32, to: *mut Step) {
            // SAFETY: the trait's contract.
            unsafe { one_input(even, to) }
        }
        #[inline(always)]
        unsafe fn inputs(from: *const f32, to: *mut u32) {
            // SAFETY: the trait's contract.
            unsafe { row_of_floats(from, to) }
        }
    };
}

/// The same with factors in bfloat16.
macro_rules! bf16_packing {
    () => {
        const STEP: usize = 2;
        #[inline(always)]
        unsafe fn pair(even: *const f32, odd: *const f32, to: *mut Step) {
            // SAFETY: the trait's contract.
            unsafe { pair_of_inputs(even, odd, to) }
        }
        #[inline(always)]
        unsafe fn inputs(from: *const f32, to: *mut u32) {
            // SAFETY: the trait's contract.
            unsafe { row_of_pairs(from, to) }
        }
    };
}

impl Micro for PortableF32 {
    type Weights = [f32; 16];
    type Input = f32;
    portable_sums!();
    f32_packing!();
    #[inline(always)]
    unsafe fn weights(from: *const Step) -> [f32; 16] {
        // SAFETY: a step is sixteen words, the trait's contract.
        unsafe { from.cast::<[f32; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn input(from: *const u32) -> f32 {
        // SAFETY: the trait's contract.
        f32::from_bits(unsafe { from.read() })
    }
    #[inline(always)]
    unsafe fn step(sums: [f32; 16], input: f32, weights: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| sums[i] + input * weights[i])
    }
}

impl Micro for PortableBf16 {
    type Weights = [u32; 16];
    type Input = u32;
    portable_sums!();
    bf16_packing!();
    #[inline(always)]
    unsafe fn weights(from: *const Step) -> [u32; 16] {
        // SAFETY: a step is sixteen words, the trait's contract.
        unsafe { from.cast::<[u32; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn input(from: *const u32) -> u32 {
        // SAFETY: the trait's contract.
        unsafe { from.read() }
    }
    #[inline(always)]
    unsafe fn step(sums: [f32; 16], input: u32, weights: [u32; 16]) -> [f32; 16] {
        let upper = |pair: u32| f32::from_bits(pair & 0xffff_0000);
        let lower = |pair: u32| f32::from_bits(pair << 16);
        std::array::from_fn(|i| sums[i] + upper(input) * upper(weights[i]) + lower(input) * lower(weights[i]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Avx2Bf16, Avx2F32, Avx512Bf16, Avx512F32, Avx512RoundedBf16};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::*;
    use std::arch::x86_64::*;

    /// Eight of sixteen lanes in each half.
    #[derive(Clone, Copy)]
    pub(crate) struct Halves(__m256, __m256);

    /// Even and odd inputs as floats.
    #[derive(Clone, Copy)]
    pub(crate) struct Pair<T>(T, T);

    pub(crate) struct Avx2F32;
    /// bfloat16 by shifts, multiplied as floats.
    pub(crate) struct Avx2Bf16;
    pub(crate) struct Avx512F32;
    /// As [`Avx2Bf16`].
    pub(crate) struct Avx512RoundedBf16;
    /// The processor's own dot product of pairs.
    pub(crate) struct Avx512Bf16;

    // SAFETY of all blocks below: the instruction set and the pointers are the contract of `Micro`.

    macro_rules! avx2_sums {
        () => {
            type Sums = Halves;
            #[inline(always)]
            unsafe fn zero() -> Halves {
                // SAFETY: see above.
                unsafe { Halves(_mm256_setzero_ps(), _mm256_setzero_ps()) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Halves {
                // SAFETY: see above.
                unsafe { Halves(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
            }
            #[inline(always)]
            unsafe fn store(sums: Halves, to: *mut f32) {
                // SAFETY: see above.
                unsafe {
                    _mm256_storeu_ps(to, sums.0);
                    _mm256_storeu_ps(to.add(8), sums.1);
                }
            }
            #[inline(always)]
            unsafe fn add(a: Halves, b: Halves) -> Halves {
                // SAFETY: see above.
                unsafe { Halves(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
            }
        };
    }

    impl Micro for Avx2F32 {
        type Weights = Halves;
        type Input = __m256;
        const TILE: (usize, usize) = (6, 1);
        avx2_sums!();
        f32_packing!();
        #[inline(always)]
        unsafe fn weights(from: *const Step) -> Halves {
            // SAFETY: see above.
            unsafe { Self::load(from.cast()) }
        }
        #[inline(always)]
        unsafe fn input(from: *const u32) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_broadcast_ss(&*from.cast()) }
        }
        #[inline(always)]
        unsafe fn step(sums: Halves, x: __m256, w: Halves) -> Halves {
            // SAFETY: see above.
            unsafe { Halves(_mm256_fmadd_ps(x, w.0, sums.0), _mm256_fmadd_ps(x, w.1, sums.1)) }
        }
    }

    impl Micro for Avx2Bf16 {
        type Weights = Pair<Halves>;
        type Input = Pair<__m256>;
        const TILE: (usize, usize) = (4, 1);
        avx2_sums!();
        bf16_packing!();
        #[inline(always)]
        unsafe fn weights(from: *const Step) -> Pair<Halves> {
            // SAFETY: see above.
            unsafe {
                let (a, b) = (split_256(from.cast()), split_256(from.cast::<u32>().add(8)));
                Pair(Halves(a.0, b.0), Halves(a.1, b.1))
            }
        }
        #[inline(always)]
        unsafe fn input(from: *const u32) -> Pair<__m256> {
            // SAFETY: see above.
            unsafe {
                let pair = *from;
                Pair(_mm256_set1_ps(f32::from_bits(pair << 16)), _mm256_set1_ps(f32::from_bits(pair & 0xffff_0000)))
            }
        }
        #[inline(always)]
        unsafe fn step(sums: Halves, x: Pair<__m256>, w: Pair<Halves>) -> Halves {
            // SAFETY: see above.
            unsafe {
                let odd = Halves(_mm256_fmadd_ps(x.1, w.1.0, sums.0), _mm256_fmadd_ps(x.1, w.1.1, sums.1));
                Halves(_mm256_fmadd_ps(x.0, w.0.0, odd.0), _mm256_fmadd_ps(x.0, w.0.1, odd.1))
            }
        }
    }

    /// Eight pairs as even and odd floats.
    #[inline(always)]
    unsafe fn split_256(from: *const u32) -> Pair<__m256> {
        // SAFETY: see above.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)),
                _mm256_castsi256_ps(_mm256_and_si256(pairs, upper)),
            )
        }
    }

    macro_rules! avx512_sums {
        () => {
            type Sums = __m512;
            #[inline(always)]
            unsafe fn zero() -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_setzero_ps() }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn store(sums: __m512, to: *mut f32) {
                // SAFETY: see above.
                unsafe { _mm512_storeu_ps(to, sums) }
            }
            #[inline(always)]
            unsafe fn add(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_add_ps(a, b) }
            }
        };
    }

    impl Micro for Avx512F32 {
        type Weights = __m512;
        type Input = __m512;
        const TILE: (usize, usize) = (12, 2);
        avx512_sums!();
        f32_packing!();
        #[inline(always)]
        unsafe fn weights(from: *const Step) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_load_ps(from.cast()) }
        }
        #[inline(always)]
        unsafe fn input(from: *const u32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(*from.cast()) }
        }
        #[inline(always)]
        unsafe fn step(sums: __m512, x: __m512, w: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(x, w, sums) }
        }
    }

    impl Micro for Avx512RoundedBf16 {
        type Weights = Pair<__m512>;
        type Input = Pair<__m512>;
        const TILE: (usize, usize) = (8, 2);
        avx512_sums!();
        bf16_packing!();
        #[inline(always)]
        unsafe fn weights(from: *const Step) -> Pair<__m512> {
            // SAFETY: see above.
            unsafe { split_512(_mm512_load_si512(from.cast())) }
        }
        #[inline(always)]
        unsafe fn input(from: *const u32) -> Pair<__m512> {
            // SAFETY: see above.
            unsafe { split_512(_mm512_set1_epi32(*from as i32)) }
        }
        #[inline(always)]
        unsafe fn step(sums: __m512, x: Pair<__m512>, w: Pair<__m512>) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(x.0, w.0, _mm512_fmadd_ps(x.1, w.1, sums)) }
        }
    }

    /// Sixteen pairs as even and odd floats.
    #[inline(always)]
    unsafe fn split_512(pairs: __m512i) -> Pair<__m512> {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
            Pair(
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)),
            )
        }
    }

    impl Micro for Avx512Bf16 {
        type Weights = __m512bh;
        type Input = __m512bh;
        const STEP: usize = 2;
        const TILE: (usize, usize) = (12, 2);
        avx512_sums!();
        #[inline(always)]
        unsafe fn weights(from: *const Step) -> __m512bh {
            // SAFETY: see above; both are 64 bytes of plain numbers.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(from.cast())) }
        }
        #[inline(always)]
        unsafe fn input(from: *const u32) -> __m512bh {
            // SAFETY: see above; both are 64 bytes of plain numbers.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*from as i32)) }
        }
        #[inline(always)]
        unsafe fn step(sums: __m512, x: __m512bh, w: __m512bh) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_dpbf16_ps(sums, x, w) }
        }
        #[inline(always)]
        unsafe fn pair(even: *const f32, odd: *const f32, to: *mut Step) {
            // SAFETY: see above; both are 32 bytes of plain numbers.
            unsafe {
                let half = |from| std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
                let (even, odd) = (_mm512_cvtepu16_epi32(half(even)), _mm512_cvtepu16_epi32(half(odd)));
                _mm512_store_si512(to.cast(), _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd)));
            }
        }
        #[inline(always)]
        unsafe fn inputs(from: *const f32, to: *mut u32) {
            // SAFETY: see above; both are 64 bytes of plain numbers.
            unsafe {
                let halves = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(16)), _mm512_loadu_ps(from));
                _mm512_storeu_si512(to.cast(), std::mem::transmute::<__m512bh, __m512i>(halves));
            }
        }
    }
}
