//! Epochs as times: milliseconds since a fixed date and a counter of 16 bits, so that epochs increase and show when they
//! began.

use crate::ids::Epoch;

/// Begin of epoch numbers: 2024-01-01T00:00:00Z, in milliseconds since the Unix epoch. Frozen: rows have epochs.
pub const EPOCH_ORIGIN_MS: u64 = 1_704_067_200_000;
/// Bits of the counter.
const COUNTER_BITS: u32 = 16;

impl Epoch {
    /// Returns the first epoch of a millisecond since the Unix epoch; 0 for one before 2024.
    pub const fn at_ms(ms: u64) -> Self {
        Self(ms.saturating_sub(EPOCH_ORIGIN_MS).saturating_mul(1 << COUNTER_BITS))
    }

    /// Time at which the epoch began, in milliseconds since the Unix epoch; `None` for epoch 0, which has no begin.
    pub const fn ms(self) -> Option<u64> {
        match self.0 {
            0 => None,
            number => Some(EPOCH_ORIGIN_MS.saturating_add(number >> COUNTER_BITS)),
        }
    }

    /// First epoch after this one; the greatest has none after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Last epoch before this one; 0 has none before it.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_ordered_like_times() {
        let begin = EPOCH_ORIGIN_MS + 5;
        assert_eq!((Epoch::at_ms(begin), Epoch::at_ms(begin).ms()), (Epoch(5 << 16), Some(begin)));
        assert!(Epoch::at_ms(begin) < Epoch::at_ms(begin + 1));
        assert_eq!(Epoch::at_ms(begin + 1).previous().ms(), Some(begin));
    }

    #[test]
    fn epochs_outside_the_range_are_clamped() {
        assert_eq!(
            (Epoch::at_ms(0), Epoch(0).ms(), Epoch(0).previous()),
            (Epoch(0), None, Epoch(0))
        );
        assert_eq!(Epoch::at_ms(u64::MAX), Epoch(u64::MAX));
    }
}
