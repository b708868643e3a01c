//! Context shared by the sources of one read.

use std::sync::Arc;

use arrow::array::{BooleanArray, UInt64Array};
use arrow::compute::and;
use arrow::compute::kernels::cmp::{gt, lt_eq};
use arrow::error::ArrowError;
use tidewater_common::ids::Epoch;

use super::filter::Filter;
use super::stats::ScanCounters;

/// Context of a read. The default reads everything, with counters of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadContext {
    /// Rows that do not pass may be skipped where [`super::pushdown`] allows it; the reader applies
    /// the filter again.
    pub(crate) filter: Arc<Filter>,
    /// Row versions of other epochs are not read.
    pub(crate) epochs: EpochBounds,
    /// The reader needs the epochs of the rows.
    pub(crate) yields_epochs: bool,
    /// Statistics of the read.
    pub(crate) counters: Arc<ScanCounters>,
}

/// Epochs whose row versions a read returns. The default has no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EpochBounds {
    /// Versions of this epoch and of earlier ones are not read.
    pub(crate) after: Option<Epoch>,
    /// Versions of later epochs are not read.
    pub(crate) as_of: Option<Epoch>,
}

impl EpochBounds {
    /// Returns the bounds of a read as of an epoch; `None`: of all versions.
    pub(crate) fn as_of(as_of: Option<Epoch>) -> Self {
        Self { after: None, as_of }
    }

    /// Returns whether some versions between these epochs, both inclusive, may be out of the bounds.
    pub(crate) fn cut(self, least: Epoch, greatest: Epoch) -> bool {
        self.after.is_some_and(|after| least <= after)
            || self.as_of.is_some_and(|as_of| greatest > as_of)
    }

    /// Returns whether all versions between these epochs, both inclusive, are out of the bounds.
    pub(crate) fn exclude(self, least: Epoch, greatest: Epoch) -> bool {
        self.after.is_some_and(|after| greatest <= after)
            || self.as_of.is_some_and(|as_of| least > as_of)
    }

    /// Returns which epochs are within the bounds; `None`: all of them, whichever they are.
    pub(crate) fn mask(self, epochs: &UInt64Array) -> Result<Option<BooleanArray>, ArrowError> {
        let after = self.after.map(|after| gt(epochs, &UInt64Array::new_scalar(after.get())));
        let as_of = self.as_of.map(|as_of| lt_eq(epochs, &UInt64Array::new_scalar(as_of.get())));
        Ok(match (after.transpose()?, as_of.transpose()?) {
            (Some(after), Some(as_of)) => Some(and(&after, &as_of)?),
            (after, as_of) => after.or(as_of),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_bounds_are_exclusive_below_and_inclusive_above() {
        let bounds = EpochBounds { after: Some(Epoch(3)), as_of: Some(Epoch(6)) };
        let mask = bounds.mask(&UInt64Array::from(vec![2, 3, 4, 6, 7])).unwrap().unwrap();
        assert_eq!(mask, BooleanArray::from(vec![false, false, true, true, false]));
        assert_eq!(EpochBounds::default().mask(&UInt64Array::from(vec![1])).unwrap(), None);
        for (least, greatest, cut, excluded) in [
            (4, 6, false, false),
            (3, 6, true, false),
            (4, 7, true, false),
            (1, 3, true, true),
            (7, 9, true, true),
        ] {
            let (least, greatest) = (Epoch(least), Epoch(greatest));
            let found = (bounds.cut(least, greatest), bounds.exclude(least, greatest));
            assert_eq!(found, (cut, excluded), "{least} to {greatest}");
        }
    }
}
