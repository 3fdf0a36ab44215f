//! Choices that a seed decides, the same on every machine.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.bits() % count.max(1) as u64) as usize
    }

    /// Whether something happens that does so often, of a hundred times.
    pub(crate) fn percent(&mut self, often: usize) -> bool {
        self.below(100) < often
    }

    /// One of some.
    pub(crate) fn one<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    /// Whom a function calls, of so many: it does so often, of a hundred times. Those behind it, and now and then
    /// itself or one before: it may recurse.
    pub(crate) fn calls(&mut self, number: usize, count: usize, often: usize) -> Vec<usize> {
        let later = count - number - 1;
        let mut calls = Vec::new();
        if later > 0 && self.percent(often) {
            for _ in 0..1 + self.below(2) {
                calls.push(number + 1 + self.below(later));
            }
            if self.percent(15) {
                calls.push(self.below(number + 1));
            }
        }
        calls
    }

    /// A number of so many bits, often at an end of its range.
    pub(crate) fn number(&mut self, bits: u32, signed: bool) -> i128 {
        let (least, most) = match (bits, signed) {
            (128, true) => (i128::MIN, i128::MAX),
            // The upper half of what has no sign is not used of the widest.
            (128, false) => (0, i128::MAX),
            (bits, true) => (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1),
            (bits, false) => (0, (1_i128 << bits) - 1),
        };
        match self.below(8) {
            0 => least,
            1 => most,
            2 => 0,
            3 => least.max(-1),
            4 => (self.below(100) as i128).min(most),
            _ => {
                let wide = (u128::from(self.bits()) << 64 | u128::from(self.bits())) as i128;
                match (bits, signed) {
                    (128, true) => wide,
                    (128, false) => wide & i128::MAX,
                    (bits, _) => least + (wide & ((1_i128 << bits) - 1)),
                }
            }
        }
    }
}
