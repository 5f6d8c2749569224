//! Intel AMX: products of tiles, by `asm!` on stable Rust.
//!
//! A tile holds up to 16 rows of 64 bytes. One instruction multiplies a tile of inputs (`rows` x 64 bytes)
//! with a tile of weights (16 x 64 bytes: for each four 8-bit or two 16-bit elements in depth, those of 16
//! outputs side by side) and adds to a tile of 16 x 16 sums. Source: Intel's Software Developer's Manual,
//! volume 2, instructions LDTILECFG, TILELOADD, TDPBSSD, TDPBSUD, TDPBF16PS.
//!
//! Integer sums are exact. A float sum takes 32 elements in depth at a time: the even and the odd ones in
//! chains of fused multiply-adds that begin at zero, the two added, that added to the sum before; subnormal
//! numbers count as zero. The order depends on depth alone, so a row alone and in a batch give the same bits.
//!
//! `gemm` multiplies bfloat16 with them, `int` bytes: 16-bit weights as two planes of bytes.
//!
//! [`emulator`] carries the instructions out on processors without them, for tests.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

#[cfg(feature = "emulate-amx")]
pub(crate) mod emulator;

/// Rows of a tile, and outputs of a tile of sums.
pub(crate) const TILE: usize = 16;
/// Bytes of a tile's row.
pub(crate) const TILE_BYTES: usize = 64;

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Signed 8-bit inputs, unsigned 8-bit weights, 32-bit sums.
    Bytes,
    /// The same, but the weights of the second panel are signed: the upper bytes of 16-bit weights whose
    /// lower ones the first panel holds.
    Planes,
    /// bfloat16, f32 sums.
    Bf16,
}

/// Whether this process may use tiles: the processor has them and the system grants the state. Asks the
/// system once for the whole process, threads to come included.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        #[cfg(feature = "emulate-amx")]
        if std::env::var_os("FATHOM_EMULATE_AMX").is_some() {
            emulator::install();
            return true;
        }
        has_instructions() && may_use_tiles()
    })
}

/// AMX-TILE, AMX-INT8 and AMX-BF16.
fn has_instructions() -> bool {
    let leaf = __cpuid_count(7, 0);
    [22, 24, 25].iter().all(|bit| leaf.edx >> bit & 1 == 1)
}

/// Asks Linux for the tile data (`arch_prctl`, ARCH_REQ_XCOMP_PERM of component 18).
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: the call changes only what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

/// The shapes of a block of up to 2 x 2 tiles of sums; in force on this thread while it lives.
///
/// Tiles 0 to 3 are sums (`2 * input tile + weight tile`), 4 and 5 inputs, 6 and 7 weights.
pub(crate) struct Tiles {
    rows: [usize; 2],
    depth_bytes: usize,
}

/// The operand of LDTILECFG.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Where the tiles of one product lie, in bytes: `steps` steps in depth.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// Inputs: up to two blocks of rows.
    pub(crate) inputs: [*const u8; 2],
    /// From one row of inputs to the next.
    pub(crate) input_stride: usize,
    /// From one step of inputs to the next.
    pub(crate) input_step: usize,
    /// Weights: up to two panels of 16 outputs; a step on is as many rows of them as a step has.
    pub(crate) weights: [*const u8; 2],
    /// From one row of weights to the next.
    pub(crate) weight_stride: usize,
    /// Steps in depth.
    pub(crate) steps: usize,
}

/// A line of the loop that is there where a shape has two blocks (or panels).
macro_rules! second {
    (one, $($line:tt)*) => { "" };
    (two, $($line:tt)*) => { $($line)* };
}

/// The loop over depth for up to two blocks of rows and two panels, whose products are the instructions
/// `$first` and `$second`. The three operands of a product must be different tiles.
macro_rules! depth_loop {
    ($tiles:ident, $from:ident, $blocks:tt, $panels:tt, $first:literal, $second:literal) => {
        asm!(
            "2:",
            "tileloadd tmm4, [{a0} + {a_stride}*1]",
            "tileloadd tmm6, [{b0} + {b_stride}*1]",
            concat!($first, " tmm0, tmm4, tmm6"),
            second!($panels, "tileloadd tmm7, [{b1} + {b_stride}*1]"),
            second!($panels, concat!($second, " tmm1, tmm4, tmm7")),
            second!($blocks, "tileloadd tmm5, [{a1} + {a_stride}*1]"),
            second!($blocks, concat!($first, " tmm2, tmm5, tmm6")),
            second!($blocks, second!($panels, concat!($second, " tmm3, tmm5, tmm7"))),
            "add {a0}, {a_step}",
            "add {a1}, {a_step}",
            "add {b0}, {b_step}",
            "add {b1}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            a0 = inout(reg) $from.inputs[0] => _,
            a1 = inout(reg) $from.inputs[1] => _,
            b0 = inout(reg) $from.weights[0] => _,
            b1 = inout(reg) $from.weights[1] => _,
            a_stride = in(reg) $from.input_stride,
            b_stride = in(reg) $from.weight_stride,
            a_step = in(reg) $from.input_step,
            b_step = in(reg) $tiles.depth_bytes / 4 * $from.weight_stride,
            steps = inout(reg) $from.steps => _,
            options(nostack, readonly),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        )
    };
}

/// The loop for as many blocks and panels as there are.
macro_rules! shapes {
    ($tiles:ident, $panels:ident, $from:ident, $first:literal, $second:literal) => {
        match ($tiles.rows[1] > 0, $panels) {
            (false, 1) => depth_loop!($tiles, $from, one, one, $first, $second),
            (false, _) => depth_loop!($tiles, $from, one, two, $first, $second),
            (true, 1) => depth_loop!($tiles, $from, two, one, $first, $second),
            (true, _) => depth_loop!($tiles, $from, two, two, $first, $second),
        }
    };
}

impl Tiles {
    /// Tiles for `rows[0]` and `rows[1]` rows of inputs (1 to 16; the second may be 0) and `depth_bytes`
    /// bytes of them a step (a multiple of 4, at most 64).
    ///
    /// # Safety
    /// [`is_available`] said yes, and no other `Tiles` lives on this thread.
    pub(crate) unsafe fn new(rows: [usize; 2], depth_bytes: usize) -> Tiles {
        let tiles = Tiles { rows, depth_bytes };
        // SAFETY: the caller's promise.
        unsafe { tiles.configure() };
        tiles
    }

    /// Changes the shapes; the sums are lost.
    ///
    /// # Safety
    /// As [`Tiles::new`].
    pub(crate) unsafe fn reshape(&mut self, rows: [usize; 2], depth_bytes: usize) {
        if (self.rows, self.depth_bytes) != (rows, depth_bytes) {
            (self.rows, self.depth_bytes) = (rows, depth_bytes);
            // SAFETY: the caller's promise.
            unsafe { self.configure() };
        }
    }

    unsafe fn configure(&self) {
        let (rows, depth) = (self.rows, self.depth_bytes);
        assert!((1..=TILE).contains(&rows[0]) && rows[1] <= TILE, "rows of a tile");
        assert!(depth > 0 && depth.is_multiple_of(4) && depth <= TILE_BYTES, "bytes of a tile's row");
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut set = |tile: usize, rows: usize, bytes: usize| {
            if rows > 0 {
                config.rows[tile] = rows as u8;
                config.row_bytes[tile] = bytes as u16;
            }
        };
        for block in 0..2 {
            set(2 * block, rows[block], TILE_BYTES);
            set(2 * block + 1, rows[block], TILE_BYTES);
            set(4 + block, rows[block], depth);
            set(6 + block, depth / 4, TILE_BYTES);
        }
        // SAFETY: 64 bytes of a valid configuration; the instruction set is the caller's promise.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
    }

    /// All sums zero.
    ///
    /// # Safety
    /// As [`Tiles::new`].
    #[inline(always)]
    pub(crate) unsafe fn zero(&mut self) {
        // SAFETY: tiles 0 and 1 are configured; 2 and 3 where there is a second block.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", options(nomem, nostack), out("tmm0") _, out("tmm1") _);
            if self.rows[1] > 0 {
                asm!("tilezero tmm2", "tilezero tmm3", options(nomem, nostack), out("tmm2") _, out("tmm3") _);
            }
        }
    }

    /// Adds the products of `steps` steps to the sums, of as many panels of weights as `panels` says (1, 2).
    ///
    /// # Safety
    /// As [`Tiles::new`]; all rows, panels and steps that the shapes name are readable.
    #[inline(always)]
    pub(crate) unsafe fn multiply(&mut self, kind: Kind, panels: usize, from: &Operands) {
        assert!((1..=2).contains(&panels), "{panels} panels");
        if from.steps == 0 {
            return;
        }
        // SAFETY: the caller's promises.
        unsafe {
            match kind {
                Kind::Bytes => shapes!(self, panels, from, "tdpbsud", "tdpbsud"),
                Kind::Planes => shapes!(self, panels, from, "tdpbsud", "tdpbssd"),
                Kind::Bf16 => shapes!(self, panels, from, "tdpbf16ps", "tdpbf16ps"),
            }
        }
    }

    /// Writes the sums of panel `panel`: `[rows, 16]` of 32 bits for each block, rows
    /// `stride_bytes` apart.
    ///
    /// # Safety
    /// As [`Tiles::new`]; `at` is valid for the rows of both blocks (the second after the first).
    #[inline(always)]
    pub(crate) unsafe fn store(&self, panel: usize, at: *mut u8, stride_bytes: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            match panel {
                0 => asm!("tilestored [{} + {}*1], tmm0", in(reg) at, in(reg) stride_bytes, options(nostack)),
                _ => asm!("tilestored [{} + {}*1], tmm1", in(reg) at, in(reg) stride_bytes, options(nostack)),
            }
            if self.rows[1] > 0 {
                let at = at.add(self.rows[0] * stride_bytes);
                match panel {
                    0 => asm!("tilestored [{} + {}*1], tmm2", in(reg) at, in(reg) stride_bytes, options(nostack)),
                    _ => asm!("tilestored [{} + {}*1], tmm3", in(reg) at, in(reg) stride_bytes, options(nostack)),
                }
            }
        }
    }

    /// The other way round: sums go on from what `at` holds.
    ///
    /// # Safety
    /// As [`Tiles::store`].
    #[inline(always)]
    pub(crate) unsafe fn load(&mut self, panel: usize, at: *const u8, stride_bytes: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            match panel {
                0 => asm!("tileloadd tmm0, [{} + {}*1]", in(reg) at, in(reg) stride_bytes,
                    options(nostack, readonly), out("tmm0") _),
                _ => asm!("tileloadd tmm1, [{} + {}*1]", in(reg) at, in(reg) stride_bytes,
                    options(nostack, readonly), out("tmm1") _),
            }
            if self.rows[1] > 0 {
                let at = at.add(self.rows[0] * stride_bytes);
                match panel {
                    0 => asm!("tileloadd tmm2, [{} + {}*1]", in(reg) at, in(reg) stride_bytes,
                        options(nostack, readonly), out("tmm2") _),
                    _ => asm!("tileloadd tmm3, [{} + {}*1]", in(reg) at, in(reg) stride_bytes,
                        options(nostack, readonly), out("tmm3") _),
                }
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: a `Tiles` exists, so the instructions do. Saves the system the state of idle tiles.
        unsafe {
            asm!("tilerelease", options(nomem, nostack),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
    }
}

#[cfg(all(test, feature = "emulate-amx"))]
mod tests {
    use super::*;
    use half::bf16;

    /// Numbers without a pattern.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            self.0 >> 33
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count).map(|_| self.next() as u8).collect()
        }
    }

    fn start() {
        emulator::install();
    }

    /// Row-major `[depth, 16]` weights of one panel, from the panel's layout of `group` elements in depth.
    fn weight(panel: &[u8], k: usize, n: usize) -> u8 {
        panel[(k / 4 * TILE + n) * 4 + k % 4]
    }

    #[test]
    fn byte_products_are_exact_for_every_shape() {
        start();
        let mut noise = Noise(1);
        for kind in [Kind::Bytes, Kind::Planes] {
            for (rows, depth, steps, panels) in [
                ([1, 0], 64, 1, 1),
                ([16, 16], 64, 5, 2),
                ([16, 3], 32, 7, 2),
                ([7, 0], 16, 4, 2),
                ([16, 16], 64, 3, 1),
            ] {
                let (all_rows, cols) = (rows[0] + rows[1], depth * steps);
                let x = noise.bytes(all_rows * cols);
                let w: Vec<Vec<u8>> = (0..panels).map(|_| noise.bytes(cols * TILE)).collect();
                let mut sums = vec![vec![0i32; all_rows * TILE]; panels];
                let from = Operands {
                    inputs: [x.as_ptr(), x[rows[0] * cols..].as_ptr()],
                    input_stride: cols,
                    input_step: depth,
                    weights: [w[0].as_ptr(), w[panels - 1].as_ptr()],
                    weight_stride: TILE_BYTES,
                    steps,
                };
                // SAFETY: the emulator is installed; all sizes as the shapes say.
                unsafe {
                    let mut tiles = Tiles::new(rows, depth);
                    tiles.zero();
                    tiles.multiply(kind, panels, &from);
                    for (panel, sums) in sums.iter_mut().enumerate() {
                        tiles.store(panel, sums.as_mut_ptr().cast(), TILE_BYTES);
                    }
                }
                for (panel, (w, sums)) in w.iter().zip(&sums).enumerate() {
                    for (i, &sum) in sums.iter().enumerate() {
                        let (m, n) = (i / TILE, i % TILE);
                        let expected: i32 = (0..cols)
                            .map(|k| {
                                let w = weight(w, k, n);
                                let signed = kind == Kind::Planes && panel == 1;
                                let w = if signed { i32::from(w as i8) } else { i32::from(w) };
                                i32::from(x[m * cols + k] as i8) * w
                            })
                            .sum();
                        assert_eq!(sum, expected, "{kind:?} {rows:?} depth {depth} row {m} output {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn float_products_go_on_from_the_sums_before() {
        start();
        let mut noise = Noise(2);
        let (rows, cols) = ([16, 5], 96);
        let mut floats = |count: usize| -> Vec<bf16> {
            (0..count).map(|_| bf16::from_f32(noise.next() as f32 / 1e9 - 1.0)).collect()
        };
        let (x, w) = (floats(21 * cols), floats(cols * TILE));
        let mut sums: Vec<f32> = (0..21 * TILE).map(|i| i as f32).collect();
        let before = sums.clone();
        let from = Operands {
            inputs: [x.as_ptr().cast(), x[16 * cols..].as_ptr().cast()],
            input_stride: 2 * cols,
            input_step: 64,
            weights: [w.as_ptr().cast(); 2],
            weight_stride: TILE_BYTES,
            steps: cols / 32,
        };
        // SAFETY: the emulator is installed; all sizes as the shapes say.
        unsafe {
            let mut tiles = Tiles::new([1, 0], 4);
            tiles.reshape(rows, 64);
            tiles.load(0, sums.as_ptr().cast(), TILE_BYTES);
            tiles.multiply(Kind::Bf16, 1, &from);
            tiles.store(0, sums.as_mut_ptr().cast(), TILE_BYTES);
        }
        for (i, (&sum, &before)) in sums.iter().zip(&before).enumerate() {
            let (m, n) = (i / TILE, i % TILE);
            let exact: f64 =
                (0..cols).map(|k| x[m * cols + k].to_f64() * w[(k / 2 * TILE + n) * 2 + k % 2].to_f64()).sum::<f64>()
                    + f64::from(before);
            assert!((f64::from(sum) - exact).abs() < 1e-4 * exact.abs().max(1.0), "row {m} output {n}: {sum} {exact}");
        }
    }
}
