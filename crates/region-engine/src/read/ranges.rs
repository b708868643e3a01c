//! The key ranges of a read: one range for a scan, one for each key of a point read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use tidewater_common::keys::{KeyCodec, KeyRange};

use crate::EngineError;

/// Non-overlapping ranges in ascending order.
#[derive(Debug, Clone)]
pub(crate) struct KeyRanges(Arc<[KeyRange]>);

impl KeyRanges {
    /// Creates the range of keys that are in both `range` and `bounds`.
    pub(crate) fn one(range: &KeyRange, bounds: &KeyRange) -> Self {
        Self([range.intersection(bounds)].into())
    }

    /// Creates ranges for exactly these row keys, if they are in `bounds`.
    pub(crate) fn points(mut keys: Vec<Vec<u8>>, bounds: &KeyRange) -> Self {
        keys.retain(|key| bounds.contains(key));
        keys.sort_unstable();
        keys.dedup();
        Self(
            keys.into_iter()
                .map(|key| {
                    let mut end = key.clone();
                    end.push(0);
                    KeyRange::new(key, Some(end))
                })
                .collect(),
        )
    }

    /// Returns those exact keys (see [`KeyRanges::points`]) for which `keep` holds.
    pub(crate) fn retain(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        Self(self.0.iter().filter(|range| keep(&range.start)).cloned().collect())
    }

    /// Returns the parts within `bounds`.
    pub(crate) fn within(&self, bounds: &KeyRange) -> Self {
        if *bounds == KeyRange::whole() {
            return self.clone();
        }
        Self(
            self.0
                .iter()
                .map(|range| range.intersection(bounds))
                .filter(|range| !range.is_empty())
                .collect(),
        )
    }

    /// The ranges that contain a key from `min` to `max`, both inclusive.
    fn between(&self, min: &[u8], max: &[u8]) -> &[KeyRange] {
        let start = self
            .0
            .partition_point(|range| range.end.as_ref().is_some_and(|end| end.as_slice() <= min));
        let end = self.0.partition_point(|range| range.start.as_slice() <= max);
        &self.0[start..end.max(start)]
    }

    /// Returns the number of ranges that contain a key from `min` to `max`, both inclusive.
    pub(crate) fn count_between(&self, min: &[u8], max: &[u8]) -> usize {
        self.between(min, max).len()
    }

    /// Returns whether one of the ranges contains every key from `min` to `max`.
    pub(crate) fn cover(&self, min: &[u8], max: &[u8]) -> bool {
        matches!(self.between(min, max), [range] if range.contains(min) && range.contains(max))
    }

    /// Returns the lowest and highest key from `min` to `max` that the ranges may contain; `None`
    /// when there is none.
    pub(crate) fn clamp(&self, min: &[u8], max: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let ranges = self.between(min, max);
        let first = ranges.first()?;
        let last = ranges.last()?;
        let low = first.start.as_slice().max(min).to_vec();
        let high = match &last.end {
            Some(end) if end.as_slice() < max => end.clone(),
            _ => max.to_vec(),
        };
        (!first.is_empty()).then_some((low, high))
    }

    /// Returns the rows of sorted key columns that are in the ranges; ascending.
    ///
    /// A binary search that builds a row key per probe: use it for whole batches, never for each
    /// row.
    pub(crate) fn rows(
        &self,
        codec: &KeyCodec,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Range<usize>>, EngineError> {
        if rows == 0 {
            return Ok(Vec::new());
        }
        let min = codec.row_key(keys, 0)?;
        let max = codec.row_key(keys, rows - 1)?;
        let key_at = |row: usize| codec.row_key(keys, row).map_err(EngineError::from);
        let mut found = Vec::new();
        for range in self.between(&min, &max) {
            let start = if range.start.as_slice() <= min.as_slice() {
                0
            } else {
                first_at_or_after(0..rows, &range.start, key_at)?
            };
            let end = match &range.end {
                Some(end) if end.as_slice() <= max.as_slice() => {
                    first_at_or_after(0..rows, end, key_at)?
                }
                _ => rows,
            };
            if start < end {
                found.push(start..end);
            }
        }
        Ok(found)
    }

    /// Returns which blocks may hold a key of the ranges. Block `i` holds the keys from `firsts[i]`
    /// up to and including `firsts[i + 1]` (a key may be in two blocks), the last block those up to
    /// `max`.
    pub(crate) fn blocks(&self, firsts: &[Vec<u8>], max: &[u8]) -> Vec<bool> {
        (0..firsts.len())
            .map(|block| {
                let last = firsts.get(block + 1).map_or(max, Vec::as_slice);
                !self.between(&firsts[block], last).is_empty()
            })
            .collect()
    }
}

/// Returns the first of some positions in key order whose key is at or after `bound`; their end without
/// any. `key_at` is called for each probe of a binary search.
pub(crate) fn first_at_or_after(
    positions: Range<usize>,
    bound: &[u8],
    key_at: impl Fn(usize) -> Result<Vec<u8>, EngineError>,
) -> Result<usize, EngineError> {
    let mut low = positions.start;
    let mut high = positions.end;
    while low < high {
        let middle = low + (high - low) / 2;
        if key_at(middle)?.as_slice() < bound {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange::new(start.as_bytes(), Some(end.as_bytes().to_vec()))
    }

    #[test]
    fn key_ranges_cover_clamp_or_exclude_a_file() {
        let ranges = KeyRanges::one(&range("c", "f"), &KeyRange::whole());
        // min, max, covered, clamped
        type Case = (&'static str, &'static str, bool, Option<(&'static str, &'static str)>);
        let cases: &[Case] = &[
            ("a", "b", false, None),
            ("a", "c", false, Some(("c", "c"))),
            ("c", "e", true, Some(("c", "e"))),
            ("d", "f", false, Some(("d", "f"))),
            ("b", "z", false, Some(("c", "f"))),
            ("f", "z", false, None),
        ];
        for (min, max, covered, clamped) in cases {
            let low = min.as_bytes();
            let high = max.as_bytes();
            assert_eq!(ranges.cover(low, high), *covered, "{min} {max}");
            let expected = clamped.map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec()));
            assert_eq!(ranges.clamp(low, high), expected, "{min} {max}");
        }
    }

    #[test]
    fn blocks_are_selected_by_their_first_keys() {
        let firsts: Vec<Vec<u8>> = ["b", "d", "f"].map(|key| key.as_bytes().to_vec()).into();
        let of = |start, end| {
            KeyRanges::one(&range(start, end), &KeyRange::whole()).blocks(&firsts, b"h")
        };
        assert_eq!(of("a", "b"), [false, false, false]);
        assert_eq!(of("c", "d"), [true, false, false]);
        assert_eq!(of("d", "e"), [true, true, false]);
        assert_eq!(of("g", "z"), [false, false, true]);
        assert_eq!(of("i", "z"), [false, false, false]);
        let points = KeyRanges::points(vec![b"h".to_vec(), b"b".to_vec()], &KeyRange::whole());
        assert_eq!(points.blocks(&firsts, b"h"), [true, false, true]);
        let outside = KeyRanges::points(vec![b"x".to_vec()], &range("a", "c"));
        assert_eq!(outside.clamp(b"a", b"z"), None);
        let kept = points.retain(|key| key == b"h");
        assert_eq!(kept.blocks(&firsts, b"h"), [false, false, true]);
        assert_eq!(points.retain(|_| false).clamp(b"a", b"z"), None);
    }
}
