//! What the processor and the system say of themselves: name, instruction sets, caches, memory.

/// The machine, as far as it tells.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The processor's name.
    pub cpu_name: Option<String>,
    /// The architecture that this program was compiled for.
    pub architecture: &'static str,
    /// The instruction sets that matter here, each with whether this processor has it.
    pub features: Vec<Feature>,
    /// The matrix unit of Intel's server processors.
    pub amx: Amx,
    /// Processors that this process may run on.
    pub processors: usize,
    /// All last-level caches together.
    pub last_level_cache_bytes: Option<u64>,
    /// Memory.
    pub memory: Memory,
    /// Operating system and version of its kernel.
    pub system: String,
}

/// One instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its usual name.
    pub name: &'static str,
    /// Whether the processor has it and the system lets it be used.
    pub present: bool,
}

/// Which parts of AMX there are (Intel's Architecture Instruction Set Extensions reference, CPUID
/// leaf 7). All false on other processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amx {
    /// Tile registers.
    pub tile: bool,
    /// Products of 8-bit integers.
    pub int8: bool,
    /// Products of bf16.
    pub bf16: bool,
    /// Products of f16.
    pub fp16: bool,
    /// Whether the system saves the tile registers (XCR0 bits 17 and 18). Without that they cannot
    /// be used; Linux asks in addition for a permission per process.
    pub enabled_by_system: bool,
}

/// Memory of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What a program can still take without swapping, at most the limit of the control group (a
    /// container's limit).
    pub available_bytes: Option<u64>,
}

impl Machine {
    /// Asks the processor and the system; takes well under a millisecond.
    pub fn read() -> Machine {
        Machine {
            cpu_name: cpu_name(),
            architecture: std::env::consts::ARCH,
            features: features(),
            amx: amx(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            last_level_cache_bytes: last_level_cache_bytes(),
            memory: Memory::read(),
            system: system(),
        }
    }

    /// The names of the features that are present.
    pub fn feature_names(&self) -> impl Iterator<Item = &'static str> {
        self.features.iter().filter(|feature| feature.present).map(|feature| feature.name)
    }
}

impl Memory {
    /// Reads Linux' `/proc/meminfo` and the control group's limit; unknown on other systems.
    pub fn read() -> Memory {
        let memory = text("/proc/meminfo").map_or(Memory { total_bytes: None, available_bytes: None }, |t| parse(&t));
        // "max" (no limit) is not a number.
        let limit = text("/sys/fs/cgroup/memory.max").and_then(|t| t.trim().parse::<u64>().ok());
        memory.limited_to(limit)
    }

    fn limited_to(self, limit: Option<u64>) -> Memory {
        let Some(limit) = limit else { return self };
        Memory { available_bytes: self.available_bytes.map(|available| available.min(limit)), ..self }
    }
}

/// `/proc/meminfo` states `MemTotal:  24683520 kB`, where kB is 1024 bytes.
fn parse(meminfo: &str) -> Memory {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Memory { total_bytes: field("MemTotal"), available_bytes: field("MemAvailable") }
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn system() -> String {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_string()
}

/// The sizes of the distinct caches of the highest level, from Linux' sysfs.
fn last_level_cache_bytes() -> Option<u64> {
    let mut caches = std::collections::BTreeMap::new();
    for cpu in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        for index in 0..8 {
            let read = |name: &str| {
                let path = cpu.path().join(format!("cache/index{index}/{name}"));
                std::fs::read_to_string(path).ok().map(|t| t.trim().to_string())
            };
            let (Some(level), Some(size), Some(shared)) = (read("level"), read("size"), read("shared_cpu_list")) else {
                continue;
            };
            if let (Ok(level), Some(bytes)) = (level.parse::<u32>(), cache_size(&size)) {
                caches.insert((level, shared), bytes);
            }
        }
    }
    let highest = caches.keys().map(|(level, _)| *level).max()?;
    Some(caches.iter().filter(|((level, _), _)| *level == highest).map(|(_, bytes)| bytes).sum())
}

/// "32768K" or "32M" in bytes.
fn cache_size(size: &str) -> Option<u64> {
    let (number, unit) = match size.strip_suffix('K') {
        Some(number) => (number, 1 << 10),
        None => (size.strip_suffix('M')?, 1 << 20),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<Feature> {
    macro_rules! features {
        ($($name:tt),*) => { vec![$(Feature { name: $name, present: is_x86_feature_detected!($name) }),*] };
    }
    features![
        "sse4.1",
        "avx",
        "f16c",
        "fma",
        "avx2",
        "avxvnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512vbmi",
        "avx512vnni",
        "avx512bf16",
        "avx512fp16"
    ]
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<Feature> {
    macro_rules! features {
        ($($name:tt),*) => {
            vec![$(Feature { name: $name, present: std::arch::is_aarch64_feature_detected!($name) }),*]
        };
    }
    features!["neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<Feature> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
fn cpu_name() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return None;
    }
    let words =
        [0x8000_0002, 0x8000_0003, 0x8000_0004].map(__cpuid).map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let bytes: Vec<u8> = words.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_string();
    (!name.is_empty()).then_some(name)
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_name() -> Option<String> {
    let cpuinfo = text("/proc/cpuinfo")?;
    let line = cpuinfo.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_string())
}

#[cfg(target_arch = "x86_64")]
fn amx() -> Amx {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax < 7 {
        return Amx::default();
    }
    let leaf = __cpuid_count(7, 0);
    let fp16_leaf_exists = leaf.eax >= 1;
    let bit = |word: u32, bit: u32| word >> bit & 1 == 1;
    Amx {
        tile: bit(leaf.edx, 24),
        int8: bit(leaf.edx, 25),
        bf16: bit(leaf.edx, 22),
        fp16: fp16_leaf_exists && bit(__cpuid_count(7, 1).eax, 21),
        enabled_by_system: tile_state_enabled(),
    }
}

#[cfg(target_arch = "x86_64")]
fn tile_state_enabled() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const XTILECFG_AND_XTILEDATA: u64 = 0b11 << 17;
    if std::arch::x86_64::__cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE states that XGETBV exists and that the system has enabled it; register 0
    // (XCR0) is always there.
    let xcr0 = unsafe { std::arch::x86_64::_xgetbv(0) };
    xcr0 & XTILECFG_AND_XTILEDATA == XTILECFG_AND_XTILEDATA
}

#[cfg(not(target_arch = "x86_64"))]
fn amx() -> Amx {
    Amx::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        let memory = parse("MemTotal:       24683520 kB\nMemFree:  1 kB\nMemAvailable:   23726080 kB\n");
        assert_eq!(memory.total_bytes, Some(24_683_520 * 1024));
        assert_eq!(memory.available_bytes, Some(23_726_080 * 1024));
    }

    #[test]
    fn what_meminfo_does_not_tell_is_unknown() {
        for odd in
            ["", "MemTotal", "MemTotal: kB", "MemTotal: -1 kB", "MemTotal: 18446744073709551615 kB", "MemTotal: 5"]
        {
            assert_eq!(parse(odd), Memory { total_bytes: None, available_bytes: None }, "{odd:?}");
        }
    }

    #[test]
    fn a_container_has_what_its_limit_leaves() {
        let memory = Memory { total_bytes: Some(100), available_bytes: Some(80) };
        assert_eq!(memory.limited_to(None), memory);
        assert_eq!(memory.limited_to(Some(50)).available_bytes, Some(50));
        assert_eq!(memory.limited_to(Some(90)).available_bytes, Some(80));
    }

    #[test]
    fn cache_sizes_have_units() {
        assert_eq!(cache_size("32768K"), Some(32 << 20));
        assert_eq!(cache_size("8M"), Some(8 << 20));
        assert_eq!(cache_size(""), None);
        assert_eq!(cache_size("99999999999999999999K"), None);
    }

    #[test]
    fn a_feature_that_needs_another_does_not_come_alone() {
        let machine = Machine::read();
        let has = |name: &str| machine.feature_names().any(|feature| feature == name);
        assert!(!has("avx512vnni") || has("avx512f"));
        assert!(!has("avx2") || has("avx"));
        assert!(machine.processors >= 1);
        let amx = machine.amx;
        assert!(amx.tile || !(amx.int8 || amx.bf16 || amx.fp16), "{amx:?}");
    }
}
