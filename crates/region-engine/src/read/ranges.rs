//! The key ranges that a read asks for: one for a scan, one per key for a point read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use tidewater_common::keys::{KeyCodec, KeyRange};

use crate::EngineError;

/// Ranges in ascending order that do not overlap.
#[derive(Debug, Clone)]
pub(crate) struct Ranges(Arc<[KeyRange]>);

impl Ranges {
    /// The part of `range` that lies in all of `bounds`.
    pub(crate) fn one(range: &KeyRange, bounds: &KeyRange) -> Self {
        Self([range.intersection(bounds)].into())
    }

    /// Exactly these row keys, as far as they lie in `bounds`.
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

    /// Of exact keys (see [`Ranges::points`]), those for which `keep` holds.
    pub(crate) fn retain(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        Self(self.0.iter().filter(|range| keep(&range.start)).cloned().collect())
    }

    /// The parts that lie in `bounds`.
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

    /// The ranges that admit a key from `min` to `max`, both inclusive.
    fn between(&self, min: &[u8], max: &[u8]) -> &[KeyRange] {
        let start = self
            .0
            .partition_point(|range| range.end.as_ref().is_some_and(|end| end.as_slice() <= min));
        let end = self.0.partition_point(|range| range.start.as_slice() <= max);
        &self.0[start..end.max(start)]
    }

    /// Whether every key from `min` to `max` lies in one of the ranges.
    pub(crate) fn cover(&self, min: &[u8], max: &[u8]) -> bool {
        matches!(self.between(min, max), [range] if range.contains(min) && range.contains(max))
    }

    /// The least and greatest key from `min` to `max` that a range may admit; `None` when none does.
    pub(crate) fn clamp(&self, min: &[u8], max: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let ranges = self.between(min, max);
        let (first, last) = (ranges.first()?, ranges.last()?);
        let low = first.start.as_slice().max(min).to_vec();
        let high = match &last.end {
            Some(end) if end.as_slice() < max => end.clone(),
            _ => max.to_vec(),
        };
        (!first.is_empty()).then_some((low, high))
    }

    /// The rows, of sorted key columns, that lie in the ranges; ascending.
    ///
    /// A binary search that makes a row key per probe: for whole batches, never for each row.
    pub(crate) fn rows(
        &self,
        codec: &KeyCodec,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Range<usize>>, EngineError> {
        if rows == 0 {
            return Ok(Vec::new());
        }
        let (min, max) = (codec.row_key(keys, 0)?, codec.row_key(keys, rows - 1)?);
        let mut found = Vec::new();
        for range in self.between(&min, &max) {
            let start = match range.start.as_slice() <= min.as_slice() {
                true => 0,
                false => first_at_or_after(codec, keys, rows, &range.start)?,
            };
            let end = match &range.end {
                Some(end) if end.as_slice() <= max.as_slice() => {
                    first_at_or_after(codec, keys, rows, end)?
                }
                _ => rows,
            };
            if start < end {
                found.push(start..end);
            }
        }
        Ok(found)
    }

    /// Which blocks may hold a key of the ranges, when block `i` holds the keys from `firsts[i]`
    /// up to and including `firsts[i + 1]` (a key may lie in two blocks) and the last one those up
    /// to `max`.
    pub(crate) fn blocks(&self, firsts: &[Vec<u8>], max: &[u8]) -> Vec<bool> {
        (0..firsts.len())
            .map(|block| {
                let last = firsts.get(block + 1).map_or(max, Vec::as_slice);
                !self.between(&firsts[block], last).is_empty()
            })
            .collect()
    }
}

fn first_at_or_after(
    codec: &KeyCodec,
    keys: &[ArrayRef],
    rows: usize,
    bound: &[u8],
) -> Result<usize, EngineError> {
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        if codec.row_key(keys, middle)?.as_slice() < bound {
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
    fn a_file_is_covered_clamped_or_left_out() {
        let ranges = Ranges::one(&range("c", "f"), &KeyRange::whole());
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
            let (low, high) = (min.as_bytes(), max.as_bytes());
            assert_eq!(ranges.cover(low, high), *covered, "{min} {max}");
            let expected = clamped.map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec()));
            assert_eq!(ranges.clamp(low, high), expected, "{min} {max}");
        }
    }

    #[test]
    fn blocks_are_chosen_by_their_first_keys() {
        let firsts: Vec<Vec<u8>> = ["b", "d", "f"].map(|key| key.as_bytes().to_vec()).into();
        let of =
            |start, end| Ranges::one(&range(start, end), &KeyRange::whole()).blocks(&firsts, b"h");
        assert_eq!(of("a", "b"), [false, false, false]);
        assert_eq!(of("c", "d"), [true, false, false]);
        assert_eq!(of("d", "e"), [true, true, false]);
        assert_eq!(of("g", "z"), [false, false, true]);
        assert_eq!(of("i", "z"), [false, false, false]);
        let points = Ranges::points(vec![b"h".to_vec(), b"b".to_vec()], &KeyRange::whole());
        assert_eq!(points.blocks(&firsts, b"h"), [true, false, true]);
        let outside = Ranges::points(vec![b"x".to_vec()], &range("a", "c"));
        assert_eq!(outside.clamp(b"a", b"z"), None);
        let kept = points.retain(|key| key == b"h");
        assert_eq!(kept.blocks(&firsts, b"h"), [false, false, true]);
        assert_eq!(points.retain(|_| false).clamp(b"a", b"z"), None);
    }
}
