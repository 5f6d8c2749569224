//! Narrow floats: IEEE half, bfloat16, OCP FP8 E4M3 and the E8M0 scale of OCP microscaling.
//!
//! Conversions to f32 are exact and go through integers, so that they hold in any denormal mode and
//! cost the same for every input.

#[inline(always)]
pub(super) fn f32_row(bytes: &[u8], out: &mut [f32]) {
    for (out, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *out = f32::from_le_bytes(*b);
    }
}

#[inline(always)]
pub(super) fn f16_row(bytes: &[u8], out: &mut [f32]) {
    for (out, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *out = f16_to_f32(u16::from_le_bytes(*b));
    }
}

#[inline(always)]
pub(super) fn bf16_row(bytes: &[u8], out: &mut [f32]) {
    for (out, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    }
}

#[inline(always)]
pub(super) fn f8e4m3_row(bytes: &[u8], out: &mut [f32]) {
    for (out, &b) in out.iter_mut().zip(bytes) {
        *out = f8e4m3_to_f32(b);
    }
}

/// `out[i] = scale * e4m3(bytes[i])`
#[inline(always)]
pub(super) fn f8e4m3_scaled(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (out, &b) in out.iter_mut().zip(bytes) {
        *out = scale * f8e4m3_to_f32(b);
    }
}

/// IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits.
#[inline(always)]
pub(super) fn f16_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff);
    let sign = u32::from(half & 0x8000) << 16;
    let normal = (magnitude << 13) + ((127 - 15) << 23);
    // 2^-24 is the unit of the subnormals.
    let subnormal = (magnitude as i32 as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let special = normal + ((255 - 31 - (127 - 15)) << 23);
    let finite = if magnitude < 0x0400 { subnormal } else { normal };
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

/// The f16 in the first two bytes.
#[inline(always)]
pub(crate) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// OCP FP8 E4M3: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, all ones is NaN.
#[inline(always)]
pub(super) fn f8e4m3_to_f32(byte: u8) -> f32 {
    let magnitude = u32::from(byte & 0x7f);
    let sign = u32::from(byte & 0x80) << 24;
    let normal = (magnitude << 20) + ((127 - 7) << 23);
    // 2^-9 is the unit of the subnormals.
    let subnormal = (magnitude as i32 as f32 * f32::from_bits((127 - 9) << 23)).to_bits();
    let finite = if magnitude < 8 { subnormal } else { normal };
    f32::from_bits(sign | if magnitude == 0x7f { 0x7fc0_0000 } else { finite })
}

/// Half of an E8M0 scale, 2^(e - 128): the elements that it multiplies are stored doubled, to be
/// integers. ggml reads 255 (NaN in the OCP specification) as one more power of two.
#[inline(always)]
pub(crate) fn e8m0_half_to_f32(e: u8) -> f32 {
    let e = u32::from(e);
    // The two lowest are subnormal numbers.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
}

/// To nearest, ties to even. Beyond the range this is an infinity.
#[inline(always)]
pub(super) fn f32_to_f16(x: f32) -> u16 {
    half::f16::from_f32_const(x).to_bits()
}

/// To nearest, ties to even. Beyond the range this is an infinity.
#[inline(always)]
pub(super) fn f32_to_bf16(x: f32) -> u16 {
    half::bf16::from_f32_const(x).to_bits()
}

/// To nearest, ties to even; beyond 448 it is 448. `x` is not a NaN.
#[inline(always)]
pub(super) fn f32_to_f8e4m3(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let x = x.abs().min(448.0);
    // Adding a power of two whose unit in the last place is the step of E4M3 at x rounds x to that
    // step: the step is 2^-3 of x's power of two, at least 2^-9.
    let exponent = (x.to_bits() >> 23).max(127 - 6);
    let magic = f32::from_bits((exponent - 3 + 23) << 23);
    let rounded = (x + magic) - magic;
    let steps = rounded * f32::from_bits((127 + 9) << 23);
    let magnitude = if steps < 8.0 {
        steps as u32
    } else {
        // Now exact in E4M3: move the bias and drop the mantissa bits that are zero.
        (rounded.to_bits() - ((127 - 7) << 23)) >> 20
    };
    sign | magnitude as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_the_half_crates() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32_const());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#06x}");
        }
    }

    #[test]
    fn every_e4m3_by_its_definition() {
        for byte in 0..=255u8 {
            let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
            let magnitude = match (exponent, byte & 7) {
                (15, 7) => f64::NAN,
                (0, _) => mantissa / 8.0 * 2f64.powi(-6),
                _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
            };
            let expected = if byte >= 128 { -magnitude } else { magnitude } as f32;
            let got = f8e4m3_to_f32(byte);
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{byte:#04x}: {got}");
        }
    }

    /// Every E4M3 value, every midpoint (to the even one) and both sides of each midpoint.
    #[test]
    fn f32_to_e4m3_is_to_nearest_even_and_saturates() {
        for byte in 0..0x7e_u8 {
            let (low, high) = (f8e4m3_to_f32(byte), f8e4m3_to_f32(byte + 1));
            let middle = (low + high) / 2.0;
            let even = byte + (byte & 1);
            for (sign, bit) in [(1.0, 0), (-1.0, 0x80)] {
                assert_eq!(f32_to_f8e4m3(sign * low), byte | bit);
                assert_eq!(f32_to_f8e4m3(sign * middle), even | bit, "middle {middle}");
                assert_eq!(f32_to_f8e4m3(sign * middle.next_down()), byte | bit);
                assert_eq!(f32_to_f8e4m3(sign * middle.next_up()), (byte + 1) | bit);
            }
        }
        for x in [448.0, 449.0, 464.0, 1e30, f32::MAX] {
            assert_eq!((f32_to_f8e4m3(x), f32_to_f8e4m3(-x)), (0x7e, 0xfe));
        }
        assert_eq!((f32_to_f8e4m3(f32::from_bits(1)), f32_to_f8e4m3(0.0), f32_to_f8e4m3(-0.0)), (0, 0, 0x80));
    }

    #[test]
    fn e8m0_is_a_power_of_two() {
        for e in 0..=255u8 {
            assert_eq!(f64::from(e8m0_half_to_f32(e)), 2f64.powi(i32::from(e) - 128));
        }
    }
}
