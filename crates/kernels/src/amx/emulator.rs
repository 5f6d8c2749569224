//! The AMX instructions for a processor that lacks them, so that the kernels can be tested everywhere.
//!
//! Such an instruction ends in an illegal-instruction signal. The handler decodes it, carries it out on tiles
//! of its own (one set for each thread) and goes on after it. What is decoded is what the kernels use:
//! LDTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILESTORED, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD, TDPBF16PS,
//! in the encoding of Intel's Software Developer's Manual, volume 2. Any other illegal instruction meets
//! the system's own handling.

use std::cell::UnsafeCell;
use std::sync::Once;

/// The tiles of a thread.
struct State {
    rows: [usize; 8],
    row_bytes: [usize; 8],
    tiles: [[[u8; 64]; 16]; 8],
}

thread_local! {
    // Constant and without a destructor: touching it allocates nothing, so a signal handler may.
    static STATE: UnsafeCell<State> =
        const { UnsafeCell::new(State { rows: [0; 8], row_bytes: [0; 8], tiles: [[[0; 64]; 16]; 8] }) };
}

/// Takes over illegal instructions of the whole process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed `sigaction` is valid, the handler has the signature that SA_SIGINFO asks for.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut())
        };
        assert_eq!(result, 0, "take over illegal instructions");
    });
}

extern "C" fn on_illegal_instruction(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the interrupted thread's context; the instruction it stopped at is mapped. The
    // state is this thread's, and the handler does not interrupt itself (the signal is blocked within).
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        match decode(at).and_then(|found| STATE.with(|state| (*state.get()).execute(&found, registers)).map(|()| found))
        {
            Some(found) => registers[libc::REG_RIP as usize] += found.len as i64,
            None => {
                libc::signal(libc::SIGILL, libc::SIG_DFL);
            }
        }
    }
}

/// A decoded instruction.
struct Decoded {
    /// Mandatory prefix: 0 none, 1 is 66, 2 is F3, 3 is F2.
    prefix: u8,
    opcode: u8,
    /// ModRM: register, and register or memory.
    reg: usize,
    rm: usize,
    is_memory: bool,
    vvvv: usize,
    base: usize,
    index: usize,
    scale: usize,
    displacement: i64,
    len: usize,
}

/// An instruction of VEX map 0F38 at `at`.
unsafe fn decode(at: *const u8) -> Option<Decoded> {
    // SAFETY: the processor has fetched this instruction; bytes are read as far as the ones before call for.
    let byte = |i: usize| unsafe { *at.add(i) };
    if byte(0) != 0xc4 || byte(1) & 0x1f != 2 {
        return None;
    }
    let (high_x, high_b) = (!byte(1) >> 6 & 1, !byte(1) >> 5 & 1);
    let (vvvv, prefix) = (!(byte(2) >> 3) & 15, byte(2) & 3);
    let (opcode, modrm) = (byte(3), byte(4));
    let (mode, reg, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let mut found = Decoded {
        prefix,
        opcode,
        reg: reg as usize,
        rm: rm as usize,
        is_memory: mode != 3,
        vvvv: vvvv as usize,
        base: (rm | high_b << 3) as usize,
        index: usize::MAX,
        scale: 1,
        displacement: 0,
        len: 5,
    };
    if !found.is_memory {
        return Some(found);
    }
    if rm == 4 {
        let sib = byte(5);
        found.base = ((sib & 7) | high_b << 3) as usize;
        let index = (sib >> 3 & 7) | high_x << 3;
        found.index = if index == 4 { usize::MAX } else { index as usize };
        found.scale = 1 << (sib >> 6);
        found.len += 1;
    }
    match mode {
        0 if found.base & 7 == 5 => return None, // no base, or relative to the instruction: not used
        0 => {}
        1 => {
            found.displacement = i64::from(byte(found.len) as i8);
            found.len += 1;
        }
        _ => {
            let bytes = [0, 1, 2, 3].map(|i| byte(found.len + i));
            found.displacement = i64::from(i32::from_le_bytes(bytes));
            found.len += 4;
        }
    }
    Some(found)
}

/// Registers by their number in an instruction.
const REGISTERS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

impl State {
    unsafe fn execute(&mut self, found: &Decoded, registers: &[i64]) -> Option<()> {
        let value = |number: usize| registers[REGISTERS[number] as usize];
        let address = |d: &Decoded| (value(d.base) + d.displacement) as *mut u8;
        let stride = |d: &Decoded| if d.index == usize::MAX { 0 } else { value(d.index) as usize * d.scale };
        // SAFETY: the addresses are those that the instruction would have touched.
        unsafe {
            match (found.opcode, found.prefix, found.is_memory) {
                (0x49, 0, true) => self.configure(std::slice::from_raw_parts(address(found), 64)),
                (0x49, 0, false) => self.configure(&[0; 64]),
                (0x49, 3, false) => self.tiles[found.reg] = [[0; 64]; 16],
                (0x4b, 3 | 1, true) => self.load(found.reg, address(found), stride(found)),
                (0x4b, 2, true) => self.store(found.reg, address(found), stride(found)),
                (0x5e, prefix, false) => self.multiply_bytes(prefix, found.reg, found.rm, found.vvvv),
                (0x5c, 2, false) => self.multiply_bf16(found.reg, found.rm, found.vvvv),
                _ => return None,
            }
        }
        Some(())
    }

    fn configure(&mut self, config: &[u8]) {
        for tile in 0..8 {
            self.row_bytes[tile] = usize::from(u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]));
            self.rows[tile] = usize::from(config[48 + tile]);
            assert!(self.row_bytes[tile] <= 64 && self.rows[tile] <= 16, "a valid configuration");
        }
        self.tiles = [[[0; 64]; 16]; 8];
    }

    unsafe fn load(&mut self, tile: usize, from: *const u8, stride: usize) {
        assert!(self.rows[tile] > 0, "tile {tile} is configured");
        self.tiles[tile] = [[0; 64]; 16];
        for row in 0..self.rows[tile] {
            let to = &mut self.tiles[tile][row][..self.row_bytes[tile]];
            // SAFETY: the memory that the instruction reads.
            unsafe { std::ptr::copy_nonoverlapping(from.add(row * stride), to.as_mut_ptr(), to.len()) };
        }
    }

    unsafe fn store(&self, tile: usize, to: *mut u8, stride: usize) {
        assert!(self.rows[tile] > 0, "tile {tile} is configured");
        for row in 0..self.rows[tile] {
            let from = &self.tiles[tile][row][..self.row_bytes[tile]];
            // SAFETY: the memory that the instruction writes.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.add(row * stride), from.len()) };
        }
    }

    /// The shapes of a product: rows, groups of four bytes in depth, outputs.
    fn shapes(&self, sums: usize, a: usize, b: usize) -> (usize, usize, usize) {
        assert!(sums != a && sums != b && a != b, "three different tiles");
        let (rows, depth, outputs) = (self.rows[sums], self.row_bytes[a] / 4, self.row_bytes[sums] / 4);
        assert!(self.rows[a] == rows && self.rows[b] == depth && self.row_bytes[b] / 4 == outputs, "shapes agree");
        (rows, depth, outputs)
    }

    fn multiply_bytes(&mut self, prefix: u8, sums: usize, a: usize, b: usize) {
        let (rows, depth, outputs) = self.shapes(sums, a, b);
        // Prefixes: none is unsigned by unsigned, 66 unsigned by signed, F3 signed by unsigned, F2 signed by signed.
        let (a_signed, b_signed) = (prefix & 2 != 0, prefix == 1 || prefix == 3);
        let widen = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
        for m in 0..rows {
            for n in 0..outputs {
                let mut sum = self.number(sums, m, n) as i32;
                for k in 0..depth {
                    for i in 0..4 {
                        let x = widen(self.tiles[a][m][4 * k + i], a_signed);
                        sum = sum.wrapping_add(x * widen(self.tiles[b][k][4 * n + i], b_signed));
                    }
                }
                self.set_number(sums, m, n, sum as u32);
            }
        }
    }

    fn multiply_bf16(&mut self, sums: usize, a: usize, b: usize) {
        let (rows, depth, outputs) = self.shapes(sums, a, b);
        let element = |tile: &[[u8; 64]; 16], row: usize, i: usize| {
            flush(f32::from_bits(u32::from(u16::from_le_bytes([tile[row][2 * i], tile[row][2 * i + 1]])) << 16))
        };
        for m in 0..rows {
            for n in 0..outputs {
                let mut chains = [0.0f32; 2];
                for k in 0..depth {
                    for (i, chain) in chains.iter_mut().enumerate() {
                        let x = element(&self.tiles[a], m, 2 * k + i);
                        *chain = flush(x.mul_add(element(&self.tiles[b], k, 2 * n + i), *chain));
                    }
                }
                let before = flush(f32::from_bits(self.number(sums, m, n)));
                let sum = flush(before + flush(chains[0] + chains[1]));
                self.set_number(sums, m, n, sum.to_bits());
            }
        }
    }

    fn number(&self, tile: usize, row: usize, n: usize) -> u32 {
        let bytes = &self.tiles[tile][row][4 * n..4 * n + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn set_number(&mut self, tile: usize, row: usize, n: usize, value: u32) {
        self.tiles[tile][row][4 * n..4 * n + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// Subnormal numbers count as zero.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}
