//! Cache of decoded values of data files.
//!
//! To read one row of a page, the whole page must be decompressed, which is most of the cost of a
//! point read. The values of a *block*, as many rows as a page holds, are therefore cached in
//! addition to their bytes, within the same limit.

use arrow::array::{Array, ArrayRef};
use uuid::Uuid;

use super::{CacheKey, CachedValue, OVERHEAD, ObjectCache};
use crate::meters;

/// Maximum bytes of the values of one block: a few blocks of wide rows would evict everything else.
pub(crate) const MAX_VALUES_BYTES: usize = 1 << 20;

/// Position of values in a data file: row group, block of rows within it, column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BlockColumn {
    group: usize,
    block: usize,
    leaf: usize,
}

impl ObjectCache {
    /// Returns the cached values of some columns in one block, identified by its row group and its
    /// number in it.
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
                let column = BlockColumn { group, block, leaf: *leaf };
                match inner.cached.get(&CacheKey::Values(object, column)) {
                    Some(CachedValue::Values(values)) => Some(values),
                    _ => None,
                }
            })
            .collect();
        drop(inner);
        let hits = found.iter().flatten().count();
        meters::record_values_lookup(hits, found.len() - hits);
        found
    }

    /// Caches all values of a column in one block, unless they are too large.
    pub(crate) fn keep_values(
        &self,
        object: Uuid,
        (group, block): (usize, usize),
        leaf: usize,
        mut values: ArrayRef,
    ) {
        // Decoders allocate larger buffers than they fill.
        values.shrink_to_fit();
        let bytes = values.get_array_memory_size();
        if bytes <= MAX_VALUES_BYTES {
            let mut inner = self.inner.lock();
            let id = CacheKey::Values(object, BlockColumn { group, block, leaf });
            inner.cached.insert(id, CachedValue::Values(values), bytes + OVERHEAD);
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
    fn cached_values_are_found_by_file_block_column() {
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
        cache.find(OBJECT, &[0], true).missing.insert_fetched(0, &[0; 1_000]);
        for block in 0..20 {
            cache.keep_values(OBJECT, (1, block), 0, values(100));
            assert!(cache.bytes() <= 6_000, "{}", cache.bytes());
            // Used entries are not evicted.
            assert!(cache.values(OBJECT, (1, 0), &[0])[0].is_some());
        }
        assert_eq!(cache.find(OBJECT, &[0], false).missing.pieces(), [0]);
        assert_eq!(cache.values(OBJECT, (1, 1), &[0]), [None]);
        assert!(cache.values(OBJECT, (1, 19), &[0])[0].is_some());
        // The size of the values, not of the decoder's buffers.
        let held = cache.bytes();
        assert!((4 * 960..=6_000).contains(&held), "{held}");
    }

    #[test]
    fn too_large_values_are_not_cached() {
        let cache = ObjectCache::new(8 * MAX_VALUES_BYTES);
        cache.keep_values(OBJECT, (1, 0), 0, values(MAX_VALUES_BYTES / 8 + 1));
        assert_eq!((cache.bytes(), cache.values(OBJECT, (1, 0), &[0])), (0, vec![None]));
        let none = ObjectCache::new(0);
        none.keep_values(OBJECT, (1, 0), 0, values(10));
        assert_eq!(none.bytes(), 0);
    }
}
