//! The stored formats as integers: what a block's bytes are before its floats multiply them.
//!
//! A block of 32 or 256 elements is `d` times integers, plus `m` where the format has minima:
//!
//! ```text
//! element i of group g = d * scale[g] * (u[i] - OFFSET) + m * min[g]
//! ```
//!
//! with `u` a byte, `scale` and `min` small integers (one in blocks of 32) and `d` and `m` floats.
//! `expand` is the specification; the versions for instruction sets give the same `u`, `scale` and
//! `min` in registers. Layouts of the formats: `quant`.

use crate::format::Format;
use crate::quant::int::{E2M1, IQ4, e8m0_half_to_f32, f16_at};

/// Where a block has its float `d`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// A 16-bit float at this byte.
    F16(usize),
    /// An E8M0 byte at the block's scale: half of 2^(e - 127).
    E8m0,
    /// The same, with 255 for NaN.
    E8m0OrNan,
}

/// A format whose blocks are integers times floats.
pub(super) trait Coded {
    /// Elements of a block: 32 or 256.
    const BLOCK: usize;
    /// Bytes from one block to the next.
    const BYTES: usize;
    /// Bytes from one block's scale to the next one's: as `BYTES`, but where scales lie apart.
    const SCALE_BYTES: usize = Self::BYTES;
    /// Elements that share an integer scale: 16 or 32.
    const GROUP: usize = 32;
    /// What is subtracted from `u`.
    const OFFSET: i32 = 0;
    /// Whether `u` goes beyond 63; `OFFSET` is 128 then.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // x86-64's sums of 16 bits ask
    const WIDE: bool = false;
    const D: Scale = Scale::F16(0);
    /// The byte where the 16-bit float of the minima is, and the sign of `m`.
    const M: Option<(usize, f32)> = None;
    /// `u` of a block.
    fn elements(block: &[u8], u: &mut [u8; 256]);
    /// `scale` and `min` of a block of 256; zeros after the last one.
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        let _ = block;
        unreachable!("blocks of 32 have no integer scales")
    }

    /// All integers of a block.
    #[inline(always)]
    fn expand(block: &[u8], to: &mut Integers) {
        Self::elements(block, &mut to.u);
        if Self::BLOCK == 256 {
            (to.scale, to.min) = Self::scales(block);
        }
    }

    /// `d` of a block.
    #[inline(always)]
    fn d(block: &[u8], scale: &[u8]) -> f32 {
        match Self::D {
            Scale::F16(at) => f16_at(block, at),
            Scale::E8m0OrNan if scale[0] == 255 => f32::NAN,
            Scale::E8m0 | Scale::E8m0OrNan => e8m0_half_to_f32(scale[0]),
        }
    }

    /// `m` of a block.
    #[inline(always)]
    fn m(block: &[u8]) -> Option<f32> {
        Self::M.map(|(at, sign)| sign * f16_at(block, at))
    }
}

/// The integers of a block; blocks of 32 use the first 32 elements and the first scale.
pub(super) struct Integers {
    pub(super) u: [u8; 256],
    pub(super) scale: [i16; 16],
    pub(super) min: [i16; 16],
}

impl Integers {
    pub(super) fn new() -> Integers {
        Integers { u: [0; 256], scale: [1; 16], min: [1; 16] }
    }
}

/// The formats that integer products know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
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
    Mxfp4,
    Mxfp4Split,
}

impl Code {
    /// The code of a format that stands in blocks; `None` for plain floats.
    pub(crate) const fn of(format: Format) -> Option<Code> {
        Some(match format {
            Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 => return None,
            Format::Q4_0 => Code::Q4_0,
            Format::Q4_1 => Code::Q4_1,
            Format::Q5_0 => Code::Q5_0,
            Format::Q5_1 => Code::Q5_1,
            Format::Q8_0 => Code::Q8_0,
            Format::Q2K => Code::Q2K,
            Format::Q3K => Code::Q3K,
            Format::Q4K => Code::Q4K,
            Format::Q5K => Code::Q5K,
            Format::Q6K => Code::Q6K,
            Format::Iq4Nl => Code::Iq4Nl,
            Format::Iq4Xs => Code::Iq4Xs,
            Format::Mxfp4 => Code::Mxfp4,
        })
    }

    /// Elements of a block.
    pub(crate) fn block(self) -> usize {
        coded!(self, F => F::BLOCK)
    }
}

/// Evaluates `$body` with the type `$f` bound to the format of `$code`.
macro_rules! coded {
    ($code:expr, $f:ident => $body:expr) => {
        match $code {
            $crate::int::coded::Code::Q4_0 => {
                type $f = $crate::int::coded::Q4_0;
                $body
            }
            $crate::int::coded::Code::Q4_1 => {
                type $f = $crate::int::coded::Q4_1;
                $body
            }
            $crate::int::coded::Code::Q5_0 => {
                type $f = $crate::int::coded::Q5_0;
                $body
            }
            $crate::int::coded::Code::Q5_1 => {
                type $f = $crate::int::coded::Q5_1;
                $body
            }
            $crate::int::coded::Code::Q8_0 => {
                type $f = $crate::int::coded::Q8_0;
                $body
            }
            $crate::int::coded::Code::Q2K => {
                type $f = $crate::int::coded::Q2K;
                $body
            }
            $crate::int::coded::Code::Q3K => {
                type $f = $crate::int::coded::Q3K;
                $body
            }
            $crate::int::coded::Code::Q4K => {
                type $f = $crate::int::coded::Q4K;
                $body
            }
            $crate::int::coded::Code::Q5K => {
                type $f = $crate::int::coded::Q5K;
                $body
            }
            $crate::int::coded::Code::Q6K => {
                type $f = $crate::int::coded::Q6K;
                $body
            }
            $crate::int::coded::Code::Iq4Nl => {
                type $f = $crate::int::coded::Iq4Nl;
                $body
            }
            $crate::int::coded::Code::Iq4Xs => {
                type $f = $crate::int::coded::Iq4Xs;
                $body
            }
            $crate::int::coded::Code::Mxfp4 => {
                type $f = $crate::int::coded::Mxfp4;
                $body
            }
            $crate::int::coded::Code::Mxfp4Split => {
                type $f = $crate::int::coded::Mxfp4Split;
                $body
            }
        }
    };
}
pub(super) use coded;

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;
pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;
pub(super) struct Iq4Nl;
pub(super) struct Iq4Xs;
pub(super) struct Mxfp4;
/// Neighbours share a byte, scales lie apart (Hugging Face's layout).
pub(super) struct Mxfp4Split;

impl Coded for Q4_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    const OFFSET: i32 = 8;
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        halves(&block[2..], u);
    }
}

impl Coded for Q4_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 20;
    const M: Option<(usize, f32)> = Some((2, 1.0));
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        halves(&block[4..], u);
    }
}

impl Coded for Q5_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 22;
    const OFFSET: i32 = 16;
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        halves(&block[6..], u);
        fifth_bits(&block[2..6], u);
    }
}

impl Coded for Q5_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 24;
    const M: Option<(usize, f32)> = Some((2, 1.0));
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        halves(&block[8..], u);
        fifth_bits(&block[4..8], u);
    }
}

impl Coded for Q8_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 34;
    const OFFSET: i32 = 128;
    const WIDE: bool = true;
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        u.iter_mut().zip(&block[2..34]).for_each(|(u, q)| *u = q ^ 0x80);
    }
}

impl Coded for Iq4Nl {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    const OFFSET: i32 = 128;
    const WIDE: bool = true;
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        halves(&block[2..], u);
        u[..32].iter_mut().for_each(|u| *u = IQ4[usize::from(*u)] as u8 ^ 0x80);
    }
}

/// What makes E2M1's doubled values natural numbers.
pub(super) const E2M1_OFFSET: i32 = 12;

impl Coded for Mxfp4 {
    const BLOCK: usize = 32;
    const BYTES: usize = 17;
    const OFFSET: i32 = E2M1_OFFSET;
    const D: Scale = Scale::E8m0;
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        halves(&block[1..], u);
        u[..32].iter_mut().for_each(|u| *u = e2m1(*u));
    }
}

impl Coded for Mxfp4Split {
    const BLOCK: usize = 32;
    const BYTES: usize = 16;
    const SCALE_BYTES: usize = 1;
    const OFFSET: i32 = E2M1_OFFSET;
    const D: Scale = Scale::E8m0OrNan;
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        for (pair, byte) in u.as_chunks_mut::<2>().0.iter_mut().zip(&block[..16]) {
            *pair = [e2m1(byte & 15), e2m1(byte >> 4)];
        }
    }
}

impl Coded for Q2K {
    const BLOCK: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const D: Scale = Scale::F16(80);
    const M: Option<(usize, f32)> = Some((82, -1.0));
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        let (mut scale, mut min) = ([0; 16], [0; 16]);
        for g in 0..16 {
            scale[g] = i16::from(block[g] & 15);
            min[g] = i16::from(block[g] >> 4);
        }
        (scale, min)
    }
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        two_bits(&block[16..80], u);
    }
}

impl Coded for Q3K {
    const BLOCK: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const OFFSET: i32 = 4;
    const D: Scale = Scale::F16(108);
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        let (scales, mut scale) = (&block[96..108], [0; 16]);
        for g in 0..16 {
            let low = scales[g % 8] >> (4 * (g / 8)) & 15;
            let high = scales[8 + g % 4] >> (2 * (g / 4)) & 3;
            scale[g] = i16::from(low | high << 4) - 32;
        }
        (scale, [0; 16])
    }
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        two_bits(&block[32..96], u);
        for (i, u) in u.iter_mut().enumerate() {
            *u |= (block[i % 32] >> (i / 32) & 1) << 2;
        }
    }
}

impl Coded for Q4K {
    const BLOCK: usize = 256;
    const BYTES: usize = 144;
    const M: Option<(usize, f32)> = Some((2, -1.0));
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        scales_and_mins(block)
    }
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        paired_nibbles(&block[16..], u);
    }
}

impl Coded for Q5K {
    const BLOCK: usize = 256;
    const BYTES: usize = 176;
    const M: Option<(usize, f32)> = Some((2, -1.0));
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        scales_and_mins(block)
    }
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        paired_nibbles(&block[48..], u);
        for (i, u) in u.iter_mut().enumerate() {
            *u |= (block[16 + i % 32] >> (i / 32) & 1) << 4;
        }
    }
}

impl Coded for Q6K {
    const BLOCK: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const D: Scale = Scale::F16(208);
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        let mut scale = [0; 16];
        for g in 0..16 {
            scale[g] = i16::from(block[192 + g] as i8);
        }
        (scale, [0; 16])
    }
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        two_bits(&block[128..192], u);
        for (i, u) in u.iter_mut().enumerate() {
            let low = block[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
            *u = *u << 4 | low;
        }
    }
}

impl Coded for Iq4Xs {
    const BLOCK: usize = 256;
    const BYTES: usize = 136;
    const OFFSET: i32 = 128;
    const WIDE: bool = true;
    fn scales(block: &[u8]) -> ([i16; 16], [i16; 16]) {
        let mut scale = [0; 16];
        let high = u16::from_le_bytes([block[2], block[3]]);
        for g in 0..8 {
            let low = i16::from(block[4 + g / 2] >> (4 * (g % 2)) & 15);
            scale[g] = (low | ((high >> (2 * g) & 3) as i16 * 16)) - 32;
        }
        (scale, [0; 16])
    }
    fn elements(block: &[u8], u: &mut [u8; 256]) {
        for g in 0..8 {
            halves(&block[8 + 16 * g..], &mut u[32 * g..]);
        }
        u.iter_mut().for_each(|u| *u = IQ4[usize::from(*u)] as u8 ^ 0x80);
    }
}

fn e2m1(nibble: u8) -> u8 {
    (i32::from(E2M1[usize::from(nibble)]) + E2M1_OFFSET) as u8
}

/// 16 low nibbles, then 16 high ones.
fn halves(bytes: &[u8], u: &mut [u8]) {
    for j in 0..16 {
        (u[j], u[16 + j]) = (bytes[j] & 15, bytes[j] >> 4);
    }
}

/// Bit `i` is 16 for element `i`.
fn fifth_bits(bytes: &[u8], u: &mut [u8]) {
    for i in 0..32 {
        u[i] |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Elements `128 h + 32 g + l` from bits `2g` of byte `32 h + l`.
fn two_bits(bytes: &[u8], u: &mut [u8; 256]) {
    for (i, u) in u.iter_mut().enumerate() {
        *u = bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    }
}

/// Elements `64 p + l` from the low nibble of byte `32 p + l`, `64 p + 32 + l` from its high one.
fn paired_nibbles(bytes: &[u8], u: &mut [u8; 256]) {
    for (i, u) in u.iter_mut().enumerate() {
        *u = bytes[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
    }
}

/// The eight scales and minima of Q4_K and Q5_K, six bits each, packed in bytes 4 to 15.
fn scales_and_mins(block: &[u8]) -> ([i16; 16], [i16; 16]) {
    let (packed, mut scale, mut min) = (&block[4..16], [0; 16], [0; 16]);
    for i in 0..4 {
        scale[i] = i16::from(packed[i] & 63);
        min[i] = i16::from(packed[4 + i] & 63);
        scale[4 + i] = i16::from(packed[8 + i] & 15 | packed[i] >> 2 & 48);
        min[4 + i] = i16::from(packed[8 + i] >> 4 | packed[4 + i] >> 2 & 48);
    }
    (scale, min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::weight::Weight;

    /// The integers and floats of random blocks are the floats that the format's reader gives, to the bit.
    #[test]
    fn integers_times_floats_are_the_elements() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        for format in Format::ALL {
            let Some(code) = Code::of(format) else { continue };
            let (elements, size) = format.block();
            for _ in 0..200 {
                let bytes: Vec<u8> = (0..size).map(|_| random()).collect();
                let floats = Weight::new(format, 1, elements, Bytes::from(bytes.clone())).unwrap().to_f32();
                coded!(code, F => same::<F>(&bytes, &bytes, &floats));
            }
        }
        for scale in 0..=255u8 {
            let bytes: Vec<u8> = (0..16).map(|_| random()).collect();
            let split = Weight::mxfp4_split(1, 32, Bytes::from(bytes.clone()), Bytes::from(vec![scale]));
            same::<Mxfp4Split>(&bytes, &[scale], &split.unwrap().to_f32());
        }
    }

    fn same<F: Coded>(block: &[u8], scale: &[u8], floats: &[f32]) {
        let mut integers = Integers::new();
        F::expand(block, &mut integers);
        let (d, m) = (F::d(block, scale), F::m(block));
        for (i, &want) in floats.iter().enumerate() {
            let g = i / F::GROUP;
            let (integer, min) = (i32::from(integers.u[i]) - F::OFFSET, f32::from(integers.min[g]));
            let got = d * f32::from(integers.scale[g]) * integer as f32 + m.map_or(0.0, |m| m * min);
            // Zeros differ in sign where zero is added.
            let same = got == want || got.is_nan() && want.is_nan();
            assert!(same, "element {i} of {block:?}: {got:e}, expected {want:e}");
            assert!(integers.u[i] <= 63 || F::WIDE && F::OFFSET == 128, "{}", integers.u[i]);
        }
    }
}
