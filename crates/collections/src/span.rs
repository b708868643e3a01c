//! Epochs at a distance in time from another one.

use tidewater_common::ids::Epoch;

/// Returns the first epoch of the time that is `span_ms` milliseconds before the begin of an epoch: the oldest readable one
/// at an upper, with a history of that length. Epoch 0 if there is none. Without a span, the epoch itself.
pub fn epoch_before(epoch: Epoch, span_ms: u64) -> Epoch {
    match (span_ms, epoch.ms()) {
        (0, _) | (_, None) => epoch,
        (_, Some(ms)) => Epoch::at_ms(ms.saturating_sub(span_ms)),
    }
}

/// Rounds an epoch down to the first one of a multiple of `granularity_ms` milliseconds since the Unix epoch; 0 and 1: not
/// rounded.
pub(crate) fn rounded_down(epoch: Epoch, granularity_ms: u64) -> Epoch {
    match (granularity_ms, epoch.ms()) {
        (0 | 1, _) | (_, None) => epoch,
        (_, Some(ms)) => Epoch::at_ms(ms - ms % granularity_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn earlier_epochs_begin_a_span_before() {
        let epoch = Epoch(at(100).get() + 3);
        for (span_ms, expected) in
            [(0, epoch), (1, at(99)), (100, Epoch(0)), (101, Epoch(0)), (u64::MAX, Epoch(0))]
        {
            assert_eq!(epoch_before(epoch, span_ms), expected, "{span_ms} ms");
        }
        assert_eq!(epoch_before(Epoch(0), 5), Epoch(0));
    }

    #[test]
    fn rounding_goes_down_to_the_granularity() {
        let epoch = Epoch(at(25_000).get() + 3);
        for (granularity_ms, expected) in [
            (0, epoch),
            (1, epoch),
            (2, at(25_000)),
            // The begin of epoch numbers is no multiple of 7 ms since the Unix epoch.
            (7, at(25_000)),
            (10_000, at(20_000)),
            (u64::MAX, Epoch(0)),
        ] {
            assert_eq!(rounded_down(epoch, granularity_ms), expected, "{granularity_ms} ms");
        }
        assert_eq!(rounded_down(at(20_000), 10_000), at(20_000));
        assert_eq!(rounded_down(Epoch(0), 10_000), Epoch(0));
    }
}
