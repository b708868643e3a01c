//! Epochs for tests.

use tidewater_common::epoch::EPOCH_ORIGIN_MS;
use tidewater_common::ids::Epoch;

/// Returns the first epoch of a millisecond after the begin of epoch numbers.
pub(crate) fn at(ms: u64) -> Epoch {
    Epoch::at_ms(EPOCH_ORIGIN_MS + ms)
}
