//! Split key of a hot route: the weighted median of its sampled keys.

use bytes::Bytes;

/// Fewest samples that decide on a split key.
const MIN_SAMPLES: usize = 16;
/// Least part of the load on each side of a split, in percent: otherwise the split relieves nothing.
const MIN_SHARE: u64 = 20;

/// Finding about the samples of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SplitKey {
    /// The key that divides the load most evenly.
    At(Bytes),
    /// No key does: a single one has most of the load.
    None,
    /// There are too few samples to decide.
    Unknown,
}

/// Finds the key that divides the load most evenly. `samples`: row keys with their weights, in any order. `start`: row
/// key at which the route begins, which is no split key; `end`: that at which it ends, if it does not end with its table.
pub(super) fn split_key(
    mut samples: Vec<(Bytes, u64)>,
    start: &[u8],
    end: Option<&[u8]>,
) -> SplitKey {
    samples.retain(|(key, _)| end.is_none_or(|end| key.as_ref() < end));
    if samples.len() < MIN_SAMPLES {
        return SplitKey::Unknown;
    }
    samples.sort_by(|left, right| left.0.cmp(&right.0));
    let total: u64 = samples.iter().fold(0, |sum, (_, weight)| sum.saturating_add(*weight));
    let mut before = 0_u64;
    let mut best: Option<(u64, &Bytes)> = None;
    let mut previous: Option<&Bytes> = None;
    for (key, weight) in &samples {
        if previous != Some(key) && key.as_ref() > start {
            let least = before.min(total.saturating_sub(before));
            if best.is_none_or(|(known, _)| least > known) {
                best = Some((least, key));
            }
        }
        previous = Some(key);
        before = before.saturating_add(*weight);
    }
    match best {
        Some((least, key))
            if u128::from(least) * 100 >= u128::from(total) * u128::from(MIN_SHARE) =>
        {
            SplitKey::At(key.clone())
        }
        _ => SplitKey::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(keys: &[(u8, u64, usize)]) -> Vec<(Bytes, u64)> {
        let repeated = |(key, weight, times): &(u8, u64, usize)| {
            vec![(Bytes::from(vec![*key]), *weight); *times]
        };
        keys.iter().flat_map(repeated).collect()
    }

    #[test]
    fn split_key_divides_the_load_evenly() {
        let at = |key: u8| SplitKey::At(Bytes::from(vec![key]));
        for (keys, expected) in [
            (vec![(1, 1, 10), (2, 1, 10), (3, 1, 10), (4, 1, 10)], at(3)),
            // Weights count, not numbers.
            (vec![(1, 10, 10), (2, 1, 30), (3, 1, 30), (4, 1, 30)], at(2)),
            (vec![(9, 1, 16), (8, 1, 16)], at(9)),
            // One hot key, also among others.
            (vec![(5, 1, 64)], SplitKey::None),
            (vec![(1, 1, 5), (5, 1, 90), (9, 1, 5)], SplitKey::None),
            (vec![(1, 1, 15)], SplitKey::Unknown),
            (vec![], SplitKey::Unknown),
        ] {
            assert_eq!(split_key(samples(&keys), &[], None), expected, "{keys:?}");
        }
    }

    #[test]
    fn route_is_not_split_at_its_start() {
        let keys = samples(&[(5, 1, 20), (6, 1, 4)]);
        assert_eq!(split_key(keys.clone(), &[5], None), SplitKey::None);
        let more = [keys, samples(&[(6, 1, 4)])].concat();
        assert_eq!(split_key(more.clone(), &[5], None), SplitKey::At(Bytes::from(vec![6])));
        assert_eq!(split_key(more, &[5], Some(&[6])), SplitKey::None, "they are of its neighbour");
    }
}
