//! Random numbers as a pure function of (seed, stream, index).
//!
//! Problem `index` of a generator depends on nothing but these three, so problems can be made in any order and on any
//! thread. The numbers are SplitMix64's (Steele, Lea, Flood 2014), which is the same on every machine.

/// A short stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

/// SplitMix64's increment: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl Rng {
    /// The numbers of item `index` of a named stream.
    pub fn new(seed: u64, stream: &str, index: u64) -> Rng {
        let start = mix(seed.wrapping_add(STEP)) ^ hash(stream.as_bytes());
        Rng { state: mix(start).wrapping_add(mix(index ^ STEP)) }
    }

    /// The numbers of a list of seeds.
    pub fn of(seeds: &[u64]) -> Rng {
        let mut rng = Rng { state: STEP };
        for seed in seeds {
            rng.state = mix(rng.bits() ^ seed);
        }
        rng
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number below `bound`, all equally likely; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        // Lemire 2019: the high word of a product, without those low words that would favour some results.
        let refused = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if (product as u64) >= refused {
                return (product >> 64) as usize;
            }
        }
    }

    /// A number from `low` to `high`, both included; `low` if the range is empty.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        if high <= low { low } else { low + self.below((high - low + 1) as usize) as i64 }
    }

    /// A number from 0 to 1, which is not included.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of the items; the list may not be empty.
    pub fn pick<'a, T: ?Sized>(&mut self, items: &'a [&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// One of the items; the list may not be empty.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index, each with a probability in proportion to its weight.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u32 = weights.iter().sum();
        let mut point = self.below(total as usize) as u32;
        for (index, &weight) in weights.iter().enumerate() {
            if point < weight {
                return index;
            }
            point -= weight;
        }
        0
    }

    /// All orders equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A stable 64-bit hash: FNV-1a, then SplitMix64's finaliser so that all bits depend on all bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |h: u64, &byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    mix(fnv)
}

/// SplitMix64's finaliser: a number all of whose bits depend on all bits of `z`.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_independent_of_order_and_differ() {
        let first = |seed, stream, index| Rng::new(seed, stream, index).bits();
        assert_eq!(first(1, "a", 2), first(1, "a", 2));
        let all = [first(1, "a", 2), first(1, "a", 3), first(2, "a", 2), first(1, "b", 2)];
        let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn the_first_numbers_are_those_of_the_paper() {
        // The reference implementation from state 0.
        let mut rng = Rng { state: 0 };
        assert_eq!([rng.bits(), rng.bits()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_eq!(Rng::of(&[1, 2]).bits(), Rng::of(&[1, 2]).bits());
        assert_ne!(Rng::of(&[1, 2]).bits(), Rng::of(&[2, 1]).bits());
    }

    #[test]
    fn ranges_reach_both_ends_and_are_even() {
        let mut rng = Rng::new(0, "range", 0);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[(rng.range(-3, 3) + 3) as usize] += 1;
        }
        // 1000 expected, standard deviation 29.
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        assert_eq!((rng.range(5, 5), rng.below(0)), (5, 0));
        let hits = (0..10_000).filter(|_| rng.chance(0.2)).count();
        assert!((1800..2200).contains(&hits), "{hits}");
    }
}
