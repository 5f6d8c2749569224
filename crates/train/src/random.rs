//! Random numbers of runs: those of `eval::rng`, begun from a list of numbers.

use std::ops::{Deref, DerefMut};

use eval::rng::Rng;
pub(crate) use eval::rng::mix;

/// A generator; its whole state is one number.
#[derive(Clone, Debug)]
pub(crate) struct Random(Rng);

impl Random {
    /// A generator of its own for each list of numbers.
    pub(crate) fn new(seeds: &[u64]) -> Random {
        Random(Rng::of(seeds))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.bits()
    }
}

impl Deref for Random {
    type Target = Rng;

    fn deref(&self) -> &Rng {
        &self.0
    }
}

impl DerefMut for Random {
    fn deref_mut(&mut self) -> &mut Rng {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was prepared and begun before must be found and go on.
    #[test]
    fn the_numbers_of_runs_never_change() {
        let mut random = Random::new(&[3, 1, 4]);
        let mut list: Vec<u32> = (0..10).collect();
        random.shuffle(&mut list);
        assert_eq!(
            (random.next(), random.below(1000), list),
            (0x7b5b_5697_6dc4_e7ed, 521, vec![4, 1, 3, 8, 9, 6, 7, 2, 0, 5])
        );
    }
}
