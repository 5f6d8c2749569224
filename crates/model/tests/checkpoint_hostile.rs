//! Model files that lie: every integer of a GGUF and of a safetensors header at 40 boundary values,
//! files cut at every byte, and 100,000 files with flipped bits. Each is read or refused by a typed
//! error, within 10 ms and with at most 1 MiB allocated.
//!
//! One test function, alone in its process: the allocation counter is the process's.

use std::alloc::System;
use std::time::{Duration, Instant};

use kernels::bytes::Bytes;
use model::checkpoint::{gguf, safetensors};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TIME_LIMIT: Duration = Duration::from_millis(10);
const ALLOCATION_LIMIT: usize = 1 << 20;

/// 0 to 3, then 2^k - 1, 2^k, 2^k + 1 for eleven k, and the last three.
fn boundary_values() -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3];
    for k in [3, 7, 8, 15, 16, 30, 31, 32, 47, 62, 63] {
        values.extend([(1u64 << k) - 1, 1 << k, (1 << k) + 1]);
    }
    values.extend([u64::MAX - 31, u64::MAX - 1, u64::MAX]);
    assert_eq!(values.len(), 40);
    values
}

type Parse = fn(&Bytes) -> Result<(), String>;

fn parse_gguf(bytes: &Bytes) -> Result<(), String> {
    gguf::parse(bytes).map(drop).map_err(|error| error.to_string())
}

fn parse_safetensors(bytes: &Bytes) -> Result<(), String> {
    let file = safetensors::parse(bytes).map_err(|error| error.to_string())?;
    // What we accept, the format's own crate accepts, with the same tensors.
    let reference = ::safetensors::SafeTensors::deserialize(bytes).expect("the reference refuses what we accept");
    assert_eq!(reference.len(), file.tensors.len());
    for tensor in &file.tensors {
        let view = reference.tensor(&tensor.name).expect("the reference lacks a tensor");
        assert_eq!((view.shape(), view.data()), (&tensor.shape[..], &tensor.data[..]));
    }
    Ok(())
}

/// Parses under the limits. A case that was too slow is tried again: on a busy machine the process
/// may just not have been running.
fn judge(parse: Parse, file: &[u8], case: &dyn Fn() -> String) -> Result<(), String> {
    let bytes = Bytes::from(file.to_vec());
    let mut attempts = 0;
    loop {
        let region = Region::new(ALLOCATOR);
        let start = Instant::now();
        let result = parse(&bytes);
        let elapsed = start.elapsed();
        let allocated = region.change().bytes_allocated;
        assert!(allocated <= ALLOCATION_LIMIT, "{}: {allocated} bytes allocated: {result:?}", case());
        if let Err(message) = &result {
            assert!(!message.is_empty() && message.len() < 1000, "{}: {message}", case());
        }
        attempts += 1;
        if elapsed <= TIME_LIMIT {
            return result;
        }
        assert!(attempts < 20, "{}: {elapsed:?}", case());
    }
}

/// A GGUF file with the place of each of its integers.
#[derive(Default)]
struct Builder {
    file: Vec<u8>,
    /// Where, how many bytes, what, and whether it counts or measures what follows in the file.
    integers: Vec<(usize, usize, String, bool)>,
}

impl Builder {
    fn u32(&mut self, value: u32, what: &str) {
        self.integers.push((self.file.len(), 4, what.to_owned(), false));
        self.file.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64, what: &str, counts: bool) {
        self.integers.push((self.file.len(), 8, what.to_owned(), counts));
        self.file.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str, what: &str) {
        self.u64(text.len() as u64, &format!("length of {what}"), true);
        self.file.extend(text.as_bytes());
    }

    fn tensor(&mut self, name: &str, dims: &[u64], kind: u32, offset: u64) {
        self.text(name, "a tensor's name");
        self.u32(dims.len() as u32, "dimension count");
        for &dim in dims {
            self.u64(dim, "dimension", true);
        }
        self.u32(kind, "tensor type");
        self.u64(offset, "offset", true);
    }
}

/// A small file with every kind of field.
fn gguf_file() -> Builder {
    let mut b = Builder::default();
    b.u32(u32::from_le_bytes(*b"GGUF"), "magic");
    b.u32(3, "version");
    b.u64(3, "tensor count", true);
    b.u64(8, "metadata count", true);
    b.text("general.alignment", "a key");
    b.u32(4, "type");
    b.u32(32, "alignment");
    b.text("general.architecture", "a key");
    b.u32(8, "type");
    b.text("qwen3", "a string");
    b.text("a.u64", "a key");
    b.u32(10, "type");
    b.u64(7, "a number", false);
    b.text("a.bool", "a key");
    b.u32(7, "type");
    b.file.push(1);
    b.text("tokens", "a key");
    b.u32(9, "type");
    b.u32(8, "element type");
    b.u64(3, "element count", true);
    for token in ["a", "bc", ""] {
        b.text(token, "a token");
    }
    b.text("scores", "a key");
    b.u32(9, "type");
    b.u32(6, "element type");
    b.u64(2, "element count", true);
    b.file.extend([0; 8]);
    b.text("nested", "a key");
    b.u32(9, "type");
    b.u32(9, "element type");
    b.u64(2, "element count", true);
    for _ in 0..2 {
        b.u32(5, "element type");
        b.u64(1, "element count", true);
        b.u32(1, "an element");
    }
    b.text("a.f32", "a key");
    b.u32(6, "type");
    b.u32(0, "a number");
    b.tensor("t.weight", &[32, 2, 1, 1], 8, 0);
    b.tensor("u", &[4], 0, 96);
    b.tensor("k", &[256, 2], 12, 128);
    let data_start = b.file.len().next_multiple_of(32);
    b.file.resize(data_start + 128 + 288, 0);
    b
}

fn put(file: &mut [u8], at: usize, width: usize, value: u64) {
    file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

fn lying_gguf() {
    let Builder { file, integers } = gguf_file();
    assert_eq!(parse_gguf(&Bytes::from(file.clone())), Ok(()), "the file itself is good");
    let mut refused = 0;
    for (at, width, what, counts) in &integers {
        for value in boundary_values() {
            let mut lie = file.clone();
            put(&mut lie, *at, *width, value);
            let case = || format!("{what} at byte {at} = {value}");
            let result = judge(parse_gguf, &lie, &case);
            refused += usize::from(result.is_err());
            if *counts && value > file.len() as u64 {
                assert!(result.is_err(), "{} was believed", case());
            }
            // The same lie in a file that ends right after the field.
            let cut = judge(parse_gguf, &lie[..at + width], &case);
            assert!(cut.is_err(), "{} was believed of a file that ends there", case());
        }
    }
    assert!(refused > integers.len() * 25, "only {refused} lies were refused");
    for length in 0..file.len() {
        let result = judge(parse_gguf, &file[..length], &|| format!("cut at byte {length}"));
        assert!(result.is_err(), "cut at byte {length}, and yet it was read");
    }
}

/// The numbers of a safetensors header, as places to put others.
fn safetensors_header(numbers: &[String]) -> String {
    let [a, b, c, d, e, f, g] = numbers else { panic!("seven numbers") };
    format!(
        r#"{{"__metadata__":{{"format":"pt"}},"t":{{"dtype":"F32","shape":[{a},{b}],"data_offsets":[{c},{d}]}},"u":{{"dtype":"U8","shape":[{e}],"data_offsets":[{f},{g}]}}}}"#
    )
}

fn safetensors_file(header: &str) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0; 27]);
    file
}

fn lying_safetensors() {
    let good: Vec<String> = ["2", "3", "0", "24", "3", "24", "27"].map(str::to_owned).to_vec();
    let file = safetensors_file(&safetensors_header(&good));
    assert_eq!(parse_safetensors(&Bytes::from(file.clone())), Ok(()), "the file itself is good");
    let written = [
        "-1",
        "1.5",
        "1e3",
        "18446744073709551616",
        "null",
        "\"1\"",
        "[]",
        "[1]",
        "{}",
        "true",
        "99999999999999999999999999",
    ];
    let mut values: Vec<String> = boundary_values().iter().map(u64::to_string).collect();
    values.extend(written.map(str::to_owned));
    for place in 0..good.len() {
        for value in values.iter().filter(|&value| *value != good[place]) {
            let mut numbers = good.clone();
            numbers[place].clone_from(value);
            let case = || format!("number {place} = {value}");
            let result = judge(parse_safetensors, &safetensors_file(&safetensors_header(&numbers)), &case);
            // A file without holes has a single truth: no other number fits.
            let message = result.expect_err(&case());
            assert!(message.contains("`t`") || message.contains("`u`"), "{}: names no tensor: {message}", case());
        }
    }
    for value in boundary_values().into_iter().filter(|&value| value != file.len() as u64 - 35) {
        let mut lie = file.clone();
        put(&mut lie, 0, 8, value);
        let case = || format!("header length = {value}");
        judge(parse_safetensors, &lie, &case).expect_err(&case());
        judge(parse_safetensors, &lie[..8], &case).expect_err(&case());
    }
    for length in 0..file.len() {
        let case = || format!("cut at byte {length}");
        judge(parse_safetensors, &file[..length], &case).expect_err(&case());
    }
}

/// xorshift64*: the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// One to eight flipped bits, and sometimes a copied or cut piece.
fn mutate(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut mutant = file.to_vec();
    for _ in 0..1 + random.below(8) {
        let at = random.below(mutant.len());
        mutant[at] ^= 1 << random.below(8);
    }
    match random.below(6) {
        0 => mutant.truncate(1 + random.below(file.len())),
        1 => {
            let (from, to) = (random.below(file.len()), random.below(file.len()));
            let count = random.below(64).min(file.len() - from.max(to));
            mutant.copy_within(from..from + count, to);
        }
        _ => {}
    }
    mutant
}

fn mutants(parse: Parse, file: &[u8], seed: u64, count: usize) {
    let mut random = Random(seed);
    let mut refused = 0;
    for case in 0..count {
        let mutant = mutate(file, &mut random);
        refused += usize::from(judge(parse, &mutant, &|| format!("seed {seed}, mutant {case}")).is_err());
    }
    assert!(refused > count / 4 && refused < count, "{refused} of {count} refused: the mutations say nothing");
}

#[test]
fn lies_are_refused_quickly_and_cheaply() {
    lying_gguf();
    lying_safetensors();
    mutants(parse_gguf, &gguf_file().file, 20_261_121, 50_000);
    let good: Vec<String> = ["2", "3", "0", "24", "3", "24", "27"].map(str::to_owned).to_vec();
    mutants(parse_safetensors, &safetensors_file(&safetensors_header(&good)), 20_261_122, 50_000);
}
