//! The storage formats: against other implementations' blocks (`fixtures/quant.bin`, written by
//! `reference/quant_fixtures.py`, which describes its layout), and by their properties.

use kernels::format::Format;
use kernels::isa::{Isa, isa};
use kernels::quant::{
    QuantizeError, dequantize_row, dequantize_row_with, f8e4m3_blocks_row, mxfp4_split_row, quantize_row,
    quantize_row_with,
};

#[test]
fn reads_what_the_reference_reads() {
    let mut seen = Vec::new();
    for record in fixture().iter().filter(|record| record.kind == b'd') {
        let mut out = vec![0.0; record.floats.len()];
        dequantize_row(record.format(), &record.bytes, &mut out);
        assert_same_floats(&out, &record.floats, &record.name);
        seen.push(record.format());
    }
    // F32 has no reading of its own in the fixture.
    assert_eq!(seen.len(), Format::ALL.len() - 1);
}

#[test]
fn writes_what_the_reference_writes() {
    let mut seen = 0;
    for record in fixture().iter().filter(|record| record.kind == b'q') {
        let mut out = vec![0; record.bytes.len()];
        quantize_row(record.format(), &record.floats, &mut out).unwrap();
        let size = record.format().row_bytes(32).unwrap();
        for (i, (got, expected)) in out.chunks(size).zip(record.bytes.chunks(size)).enumerate() {
            assert_eq!(got, expected, "{}, row {i}: {:?}", record.name, &record.floats[32 * i..][..32]);
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn reads_mxfp4_with_scales_beside() {
    let records = fixture();
    let record = records.iter().find(|record| record.kind == b's').unwrap();
    let (blocks, scales) = record.bytes.split_at(record.floats.len() / 2);
    let mut out = vec![0.0; record.floats.len()];
    mxfp4_split_row(blocks, scales, &mut out);
    assert_same_floats(&out, &record.floats, "mxfp4 with scales beside");

    mxfp4_split_row(&blocks[..16], &[255], &mut out[..32]);
    assert!(out[..32].iter().all(|x| x.is_nan()), "the scale 255 is NaN");
}

#[test]
fn reads_fp8_with_block_scales() {
    let records = fixture();
    let record = records.iter().find(|record| record.kind == b'f').unwrap();
    let (scales, expected) = record.floats.split_at(record.bytes.len().div_ceil(128));
    let mut out = vec![0.0; record.bytes.len()];
    f8e4m3_blocks_row(&record.bytes, scales, &mut out);
    assert_same_floats(&out, expected, "fp8 with block scales");
}

#[test]
fn f32_is_itself() {
    let row = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 4.0, -f32::MAX];
    let mut bytes = [0; 20];
    quantize_row(Format::F32, &row, &mut bytes).unwrap();
    let mut back = [1.0; 5];
    dequantize_row(Format::F32, &bytes, &mut back);
    assert_same_floats(&back, &row, "f32");
}

/// Random bytes, so every code, scale, subnormal, infinity and NaN; also with block counts that
/// leave a remainder for any vector length.
#[test]
fn all_instruction_sets_read_the_same_bits() {
    let mut random = Random(1);
    for format in Format::ALL {
        let (elements, _) = format.block();
        for blocks in [1, 2, 3, 7, 64, 2049] {
            let cols = blocks * elements;
            let bytes: Vec<u8> = (0..format.row_bytes(cols).unwrap()).map(|_| random.next() as u8).collect();
            let mut expected = vec![0.0; cols];
            dequantize_row_with(Isa::Portable, format, &bytes, &mut expected);
            for isa in Isa::available() {
                let mut out = vec![0.0; cols];
                dequantize_row_with(isa, format, &bytes, &mut out);
                assert_same_floats(&out, &expected, &format!("{format}, {isa:?}"));
            }
        }
    }
}

#[test]
fn all_instruction_sets_read_every_16_bit_float_the_same() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for format in [Format::F16, Format::BF16] {
        let mut expected = vec![0.0; 0x10000];
        dequantize_row_with(Isa::Portable, format, &bytes, &mut expected);
        for isa in Isa::available() {
            let mut out = vec![0.0; 0x10000];
            dequantize_row_with(isa, format, &bytes, &mut out);
            assert_same_floats(&out, &expected, &format!("{format}, {isa:?}"));
        }
    }
}

#[test]
fn all_instruction_sets_write_the_same_bytes() {
    let mut random = Random(2);
    for format in Format::ALL {
        for scale in [1.0, 3e-6, 1e-8, 700.0] {
            let row: Vec<f32> = (0..2048).map(|_| random.normal() * scale).collect();
            let expected = written(Isa::Portable, format, &row);
            for isa in Isa::available() {
                assert!(written(isa, format, &row) == expected, "{format}, {isa:?}, scale {scale}");
            }
        }
    }
}

/// What is read back differs by no more than a bound that follows from the format: half of the
/// coarsest step, as a share of the block's largest magnitude.
#[test]
fn round_trip_error_is_bounded() {
    let mut random = Random(3);
    for format in Format::ALL {
        let bound = match format {
            Format::F32 => 0.0,
            Format::F16 => 0.5f32.powi(11),
            Format::BF16 => 0.5f32.powi(8),
            Format::F8E4M3 => 0.5f32.powi(4),
            // The positive end of the codes is one step short.
            Format::Q4_0 => 1.0 / 8.0 * 1.001,
            Format::Q5_0 => 1.0 / 16.0 * 1.001,
            // Half a step of the range, which is up to twice the largest magnitude.
            Format::Q4_1 => 1.0 / 15.0 * 1.01,
            Format::Q5_1 => 1.0 / 31.0 * 1.02,
            Format::Q8_0 => 0.5 / 127.0 * 1.1,
            // 6 is the largest value, the scale of 8 · 0.999 is that of 4.
            Format::Mxfp4 => 0.25,
            // Searches may clip single values for the sake of the others.
            Format::Q2K => 0.6,
            Format::Q3K => 0.35,
            Format::Q4K => 0.2,
            Format::Q5K => 0.1,
            Format::Q6K => 0.05,
            Format::Iq4Nl | Format::Iq4Xs => 0.25,
        };
        for scale in [1.0, 0.02, 300.0] {
            let mut row: Vec<f32> = (0..8192).map(|_| random.normal() * scale).collect();
            if format == Format::F8E4M3 {
                row.iter_mut().for_each(|x| *x = x.clamp(-448.0, 448.0));
            }
            let back = round_trip(format, &row);
            let size = format.block().0;
            for (x, y) in row.chunks(size).zip(back.chunks(size)) {
                let largest = x.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
                // Half of a step of the subnormals.
                let floor = match format {
                    Format::F8E4M3 => 0.5f32.powi(10),
                    Format::F16 => 0.5f32.powi(25),
                    _ => 0.0,
                };
                for (x, y) in x.iter().zip(y) {
                    let error = (x - y).abs();
                    assert!(error <= largest * bound + floor, "{format}: {x} became {y}, largest {largest}");
                }
            }
        }
    }
}

/// The root mean square error on N(0, 1), a hundredth above what was measured. The comments give
/// ggml's reference quantisers on the same distribution: the searches are to be better.
#[test]
fn error_on_normal_values() {
    let mut random = Random(4);
    let row: Vec<f32> = (0..1 << 17).map(|_| random.normal()).collect();
    for (format, bound) in [
        (Format::Q4_0, 0.0870),   // 0.0861
        (Format::Q4_1, 0.0790),   // 0.0782
        (Format::Q5_0, 0.0433),   // 0.0427
        (Format::Q5_1, 0.0383),   // 0.0378
        (Format::Q8_0, 0.00542),  // 0.00536
        (Format::Q2K, 0.263),     // 0.2965
        (Format::Q3K, 0.1453),    // 0.1509
        (Format::Q4K, 0.0710),    // 0.0713
        (Format::Q5K, 0.0350),    // 0.0361
        (Format::Q6K, 0.0168),    // 0.0177
        (Format::Iq4Nl, 0.0742),  // 0.0786
        (Format::Iq4Xs, 0.0748),  // 0.0767
        (Format::Mxfp4, 0.1163),  // 0.1151
        (Format::F8E4M3, 0.0268), // none
    ] {
        let error = rms(&row, &round_trip(format, &row));
        assert!(error < bound, "{format}: {error}");
    }
}

/// Values that a format can hold exactly come back nearly or wholly unchanged.
#[test]
fn what_was_read_is_written_again() {
    let mut random = Random(5);
    let row: Vec<f32> = (0..8192).map(|_| random.normal()).collect();
    for format in Format::ALL {
        let once = round_trip(format, &row);
        let twice = round_trip(format, &once);
        let (first, second) = (rms(&row, &once), rms(&once, &twice));
        match format {
            // The range is stored as rounded scale and minimum, whose sum is not the maximum.
            Format::Q4_1 | Format::Q5_1 => assert!(second < first * 0.1, "{format}: {second} after {first}"),
            // The search starts anew and may end elsewhere, but not far away.
            Format::Q2K | Format::Q3K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq4Nl | Format::Iq4Xs => {
                assert!(second < first * 0.5, "{format}: {second} after {first}");
            }
            _ => assert_eq!(once, twice, "{format}"),
        }
    }
}

#[test]
fn zeros_are_zeros() {
    for format in Format::ALL {
        for zero in [0.0, -0.0, 1e-30, -1e-30, f32::from_bits(1)] {
            let back = round_trip(format, &[zero; 512]);
            let floor = if matches!(format, Format::F32 | Format::BF16 | Format::Mxfp4) { 2e-30 } else { 0.0 };
            assert!(back.iter().all(|x| x.abs() <= floor), "{format} of {zero:e}");
        }
    }
}

#[test]
fn constant_and_lonely_values_survive() {
    for format in Format::ALL {
        // The codebook has no zero: its nearest value is 1 of 127.
        let bound = if matches!(format, Format::Iq4Nl | Format::Iq4Xs) { 0.01 } else { 0.002 };
        for value in [1.0, -1.0, 0.375] {
            let mut lonely = [0.0; 256];
            lonely[77] = value;
            for row in [[value; 256], lonely] {
                let back = round_trip(format, &row);
                for (x, y) in row.iter().zip(back) {
                    assert!((x - y).abs() <= bound * value.abs(), "{format}: {x} became {y}");
                }
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for format in Format::ALL {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = [1.0; 512];
            row[300] = value;
            let mut out = vec![0; format.row_bytes(512).unwrap()];
            match quantize_row(format, &row, &mut out) {
                Err(QuantizeError::NonFinite { index: 300, value: got }) => assert_eq!(got.to_bits(), value.to_bits()),
                other => panic!("{format} of {value}: {other:?}"),
            }
        }
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for format in Format::ALL {
        let mut row = [1.0; 512];
        row[300] = -3.38e38;
        let mut out = vec![0; format.row_bytes(512).unwrap()];
        let result = quantize_row(format, &row, &mut out);
        match format {
            // These saturate or have the exponents of f32.
            Format::F32 | Format::F8E4M3 | Format::Mxfp4 => result.unwrap(),
            // The largest that this can hold is just below the largest float.
            Format::BF16 => {
                result.unwrap();
                row[300] = f32::MAX;
                assert!(quantize_row(format, &row, &mut out).is_err());
            }
            _ => {
                let error = result.unwrap_err();
                assert_eq!(error, QuantizeError::OutOfRange { index: 300, value: -3.38e38, format });
                let text = error.to_string();
                assert!(text.contains("300") && text.contains("-3.38e38") && text.contains(format.name()), "{text}");
            }
        }
    }
}

/// Any finite bits, block by block of any magnitude: a row is written or refused, never a panic, and
/// what was written reads as finite numbers.
#[test]
fn any_finite_bits_are_written_or_refused() {
    let mut random = Random(6);
    for format in Format::ALL {
        let mut written = 0;
        for round in 0..400 {
            let exponent = (random.next() % 255) as u32;
            let row: Vec<f32> = (0..256)
                .map(|_| {
                    let bits = random.next() as u32;
                    // Every other row has values of like magnitude, else a block is always too large.
                    let exponent = if round % 2 == 0 { exponent } else { (bits >> 23 & 255) % 255 };
                    f32::from_bits(bits & 0x807f_ffff | exponent << 23)
                })
                .collect();
            let mut out = vec![0; format.row_bytes(256).unwrap()];
            if quantize_row(format, &row, &mut out).is_ok() {
                let mut back = vec![0.0; 256];
                dequantize_row(format, &out, &mut back);
                assert!(back.iter().all(|x| x.is_finite()), "{format}: {row:?} became {back:?}");
                written += 1;
            }
        }
        assert!(written > 50, "{format}: {written}");
    }
}

/// Near the largest scale that a half can hold, both sides.
#[test]
fn the_largest_blocks_are_finite() {
    let mut random = Random(7);
    let shape: Vec<f32> = (0..256).map(|_| random.normal()).collect();
    for format in Format::ALL.into_iter().filter(|format| !matches!(format, Format::F32 | Format::Mxfp4)) {
        let (mut written, mut refused) = (0, 0);
        for power in 20..1000 {
            let scale = 1.09f32.powi(power);
            let row: Vec<f32> = shape.iter().map(|x| x * scale).collect();
            if row.iter().any(|x| !x.is_finite()) {
                break;
            }
            let mut out = vec![0; format.row_bytes(256).unwrap()];
            match quantize_row(format, &row, &mut out) {
                Ok(()) => {
                    let mut back = vec![0.0; 256];
                    dequantize_row(format, &out, &mut back);
                    assert!(back.iter().all(|x| x.is_finite()), "{format} at {scale}");
                    if format != Format::F8E4M3 {
                        assert!(rms(&row, &back) < 0.5 * f64::from(scale), "{format} at {scale}");
                    }
                    written += 1;
                }
                Err(QuantizeError::OutOfRange { .. }) => refused += 1,
                Err(other) => panic!("{format}: {other}"),
            }
        }
        assert!(written > 0, "{format}");
        assert!(refused > 0 || matches!(format, Format::F8E4M3 | Format::BF16), "{format}");
    }
}

#[test]
fn wrong_sizes_panic() {
    let attempts: [fn(); 6] = [
        || dequantize_row(Format::Q8_0, &[0; 33], &mut [0.0; 32]),
        || dequantize_row(Format::Q8_0, &[0; 34], &mut [0.0; 31]),
        || quantize_row(Format::Q4K, &[0.0; 256], &mut [0; 143]).unwrap(),
        || quantize_row(Format::Q4K, &[0.0; 128], &mut [0; 72]).unwrap(),
        || f8e4m3_blocks_row(&[0; 129], &[1.0], &mut [0.0; 129]),
        || mxfp4_split_row(&[0; 16], &[0], &mut [0.0; 64]),
    ];
    for (i, attempt) in attempts.into_iter().enumerate() {
        assert!(std::panic::catch_unwind(attempt).is_err(), "attempt {i}");
    }
}

#[test]
fn empty_rows_are_fine() {
    for format in Format::ALL {
        dequantize_row(format, &[], &mut []);
        quantize_row(format, &[], &mut []).unwrap();
    }
    f8e4m3_blocks_row(&[], &[], &mut []);
    mxfp4_split_row(&[], &[], &mut []);
}

struct Record {
    kind: u8,
    name: String,
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

impl Record {
    fn format(&self) -> Format {
        Format::ALL.into_iter().find(|format| format.name() == self.name).unwrap()
    }
}

fn fixture() -> Vec<Record> {
    let mut data: &[u8] = include_bytes!("fixtures/quant.bin");
    let mut take = move |n: usize| data.split_off(..n).unwrap();
    let mut records = Vec::new();
    // kind s and f each occur once, f is the last
    while records.last().is_none_or(|record: &Record| record.kind != b'f') {
        let kind = take(1)[0];
        let n = usize::from(take(1)[0]);
        let name = String::from_utf8(take(n).to_vec()).unwrap();
        let mut size = || u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let (bytes, floats) = (size(), size());
        let bytes = take(bytes).to_vec();
        let floats = take(4 * floats).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        records.push(Record { kind, name, bytes, floats });
    }
    records
}

/// Equal bits; of NaNs only that they are NaNs.
fn assert_same_floats(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{what}, element {i}: {a:e}, expected {b:e}");
    }
}

fn written(isa: Isa, format: Format, row: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; format.row_bytes(row.len()).unwrap()];
    quantize_row_with(isa, format, row, &mut bytes).unwrap();
    bytes
}

fn round_trip(format: Format, row: &[f32]) -> Vec<f32> {
    let mut back = vec![0.0; row.len()];
    dequantize_row(format, &written(isa(), format, row), &mut back);
    back
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// N(0, 1), by Box and Muller.
    fn normal(&mut self) -> f32 {
        let mut uniform = || ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32
    }
}
