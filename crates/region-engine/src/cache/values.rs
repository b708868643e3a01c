//! Decoded values of data files.
//!
//! To get at one row of a page, all of it must be decompressed: that is most of what a point read
//! costs. So the values of a *block*, as many rows as a page holds, are kept beside the bytes that they
//! were made from, in the same limit; whichever is used less goes first.

use arrow::array::{Array, ArrayRef};
use metrics::counter;
use uuid::Uuid;

use super::{Held, HeldId, OVERHEAD, ObjectCache};

/// Bytes of the values of one block at most: a few of wide rows would drive out everything else.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// Where values stand in a data file: row group, block of rows within it, column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    group: usize,
    block: usize,
    leaf: usize,
}

impl ObjectCache {
    /// The values of some columns in one block, named by its row group and its number in it, as far as they are held.
    pub(crate) fn values(
        &self,
        object: Uuid,
        (group, block): (usize, usize),
        leaves: &[usize],
    ) -> Vec<Option<ArrayRef>> {
        let mut inner = self.inner.lock();
        let found: Vec<Option<ArrayRef>> = leaves
            .iter()
            .map(|leaf| {
                let place = Place { group, block, leaf: *leaf };
                match inner.held.get(&HeldId::Values(object, place)) {
                    Some(Held::Values(values)) => Some(values),
                    _ => None,
                }
            })
            .collect();
        drop(inner);
        let hits = found.iter().flatten().count();
        counter!("tidewater_object_cache_values_hits_total").increment(hits as u64);
        counter!("tidewater_object_cache_values_misses_total")
            .increment((found.len() - hits) as u64);
        found
    }

    /// Holds all values of a column in one block, unless they are too many bytes.
    pub(crate) fn keep_values(
        &self,
        object: Uuid,
        (group, block): (usize, usize),
        leaf: usize,
        mut values: ArrayRef,
    ) {
        // Decoders leave room at the ends of their buffers.
        values.shrink_to_fit();
        let bytes = values.get_array_memory_size();
        if bytes <= MOST_BYTES {
            let mut inner = self.inner.lock();
            let id = HeldId::Values(object, Place { group, block, leaf });
            inner.held.insert(id, Held::Values(values), bytes + OVERHEAD);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;

    use super::*;

    const OBJECT: Uuid = Uuid::from_u128(7);

    fn values(rows: usize) -> ArrayRef {
        let mut values = Vec::with_capacity(4 * rows);
        values.resize(rows, 0.5);
        Arc::new(Float64Array::from(values))
    }

    #[test]
    fn values_are_found_by_file_block_and_column() {
        let cache = ObjectCache::new(10_000);
        cache.keep_values(OBJECT, (1, 2), 3, values(10));
        assert_eq!(cache.values(OBJECT, (1, 2), &[4, 3]), [None, Some(values(10))]);
        for (object, at) in [(Uuid::from_u128(8), (1, 2)), (OBJECT, (0, 2)), (OBJECT, (1, 3))] {
            assert_eq!(cache.values(object, at, &[3]), [None], "{object} {at:?}");
        }
    }

    #[test]
    fn values_and_pieces_share_one_limit() {
        let cache = Arc::new(ObjectCache::new(6_000));
        cache.find(OBJECT, &[0], true).missing.arrived(0, &[0; 1_000]);
        for block in 0..20 {
            cache.keep_values(OBJECT, (1, block), 0, values(100));
            assert!(cache.bytes() <= 6_000, "{}", cache.bytes());
            // What is used stays.
            assert!(cache.values(OBJECT, (1, 0), &[0])[0].is_some());
        }
        assert_eq!(cache.find(OBJECT, &[0], false).missing.pieces(), [0]);
        assert_eq!(cache.values(OBJECT, (1, 1), &[0]), [None]);
        assert!(cache.values(OBJECT, (1, 19), &[0])[0].is_some());
        // As much as they take, not as much as their decoder had asked for.
        let held = cache.bytes();
        assert!((4 * 960..=6_000).contains(&held), "{held}");
    }

    #[test]
    fn what_is_too_large_is_not_held() {
        let cache = ObjectCache::new(8 * MOST_BYTES);
        cache.keep_values(OBJECT, (1, 0), 0, values(MOST_BYTES / 8 + 1));
        assert_eq!((cache.bytes(), cache.values(OBJECT, (1, 0), &[0])), (0, vec![None]));
        let none = ObjectCache::new(0);
        none.keep_values(OBJECT, (1, 0), 0, values(10));
        assert_eq!(none.bytes(), 0);
    }
}
