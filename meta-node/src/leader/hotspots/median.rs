//! Split key of a hot route: the weighted median of its sampled keys, among the keys that divide the load of each window.
//!
//! Keys that ascend with time make a median that divides the load of the past: all new keys are on its right. No window has
//! load on both sides of such a key, so it is none that splits the route.

use bytes::Bytes;

/// Fewest samples that decide on a split key.
const MIN_SAMPLES: usize = 16;
/// Least part of the load on each side of a split, in percent: otherwise the split relieves nothing.
const MIN_SHARE: u64 = 20;
/// Fewest samples of a window that show how a key divides its load.
const MIN_SAMPLES_OF_WINDOW: usize = 8;
/// Least part of the samples of a window on each side of a split, in percent. Less than [`MIN_SHARE`]: few samples differ from
/// the load by chance.
const MIN_SHARE_OF_WINDOW: usize = 5;

/// Sampled row keys of one window, in any order, and the load per sample.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    pub(super) keys: Vec<Bytes>,
    pub(super) weight: u64,
}

/// Finding about the samples of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SplitKey {
    /// The key that divides the load most evenly.
    At(Bytes),
    /// No key does: a single one has most of the load, or the keys ascend with time.
    None,
    /// There are too few samples to decide.
    Unknown,
}

/// Finds the key that divides the load most evenly. `start`: row key at which the route begins, which is no split key; `end`:
/// row key at which it ends; `None`: it ends with its table.
pub(super) fn split_key(mut windows: Vec<Samples>, start: &[u8], end: Option<&[u8]>) -> SplitKey {
    for window in &mut windows {
        window.keys.retain(|key| end.is_none_or(|end| key.as_ref() < end));
        window.keys.sort_unstable();
    }
    let mut candidates: Vec<&Bytes> = windows.iter().flat_map(|window| &window.keys).collect();
    if candidates.len() < MIN_SAMPLES {
        return SplitKey::Unknown;
    }
    candidates.sort_unstable();
    candidates.dedup();
    let total = load(&windows, |window| window.keys.len());
    let share = |key: &Bytes| {
        let before = load(&windows, |window| before(window, key));
        before.min(total.saturating_sub(before))
    };
    candidates.retain(|key| {
        key.as_ref() > start && windows.iter().all(|window| divides_window(window, key))
    });
    // Of equal ones, the first.
    let best = candidates.into_iter().rev().max_by_key(|key| share(key));
    match best {
        Some(key) if u128::from(share(key)) * 100 >= u128::from(total) * u128::from(MIN_SHARE) => {
            SplitKey::At(key.clone())
        }
        _ => SplitKey::None,
    }
}

/// Load of a number of samples of each window.
fn load(windows: &[Samples], number: impl Fn(&Samples) -> usize) -> u64 {
    let of_window = |window: &Samples| window.weight.saturating_mul(number(window) as u64);
    windows.iter().fold(0, |sum, window| sum.saturating_add(of_window(window)))
}

/// Number of the samples of a window before a key. The samples are in order.
fn before(window: &Samples, key: &Bytes) -> usize {
    window.keys.partition_point(|sample| sample < key)
}

fn divides_window(window: &Samples, key: &Bytes) -> bool {
    let (samples, before) = (window.keys.len(), before(window, key));
    samples < MIN_SAMPLES_OF_WINDOW
        || before.min(samples - before) * 100 >= samples * MIN_SHARE_OF_WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of `(key, number of samples)`, with one weight each.
    fn windows(of_windows: &[(u64, &[(u8, usize)])]) -> Vec<Samples> {
        let keys = |keys: &[(u8, usize)]| {
            let repeated = |(key, times): &(u8, usize)| vec![Bytes::from(vec![*key]); *times];
            keys.iter().flat_map(repeated).collect()
        };
        of_windows.iter().map(|(weight, of)| Samples { keys: keys(of), weight: *weight }).collect()
    }

    fn at(key: u8) -> SplitKey {
        SplitKey::At(Bytes::from(vec![key]))
    }

    #[test]
    fn split_key_divides_the_load_evenly() {
        for (keys, expected) in [
            (&[(1, 10), (2, 10), (3, 10), (4, 10)][..], at(3)),
            (&[(9, 16), (8, 16)], at(9)),
            // One hot key, also among others.
            (&[(5, 64)], SplitKey::None),
            (&[(1, 5), (5, 90), (9, 5)], SplitKey::None),
            (&[(1, 15)], SplitKey::Unknown),
            (&[], SplitKey::Unknown),
        ] {
            assert_eq!(split_key(windows(&[(1, keys)]), &[], None), expected, "{keys:?}");
        }
        // Weights count, not numbers.
        let weighted = windows(&[(10, &[(1, 10), (2, 10)]), (1, &[(1, 10), (3, 40), (4, 40)])]);
        assert_eq!(split_key(weighted, &[], None), at(2));
    }

    #[test]
    fn route_is_not_split_at_its_start() {
        let keys = windows(&[(1, &[(5, 20), (6, 4)])]);
        assert_eq!(split_key(keys, &[5], None), SplitKey::None);
        let more = windows(&[(1, &[(5, 20), (6, 8)])]);
        assert_eq!(split_key(more.clone(), &[5], None), at(6));
        assert_eq!(split_key(more, &[5], Some(&[6])), SplitKey::None, "they are of its neighbour");
    }

    #[test]
    fn route_is_not_split_within_ascending_keys() {
        let ascending = windows(&[
            (1, &[(1, 20), (2, 20)]),
            (1, &[(3, 20), (4, 20)]),
            (1, &[(5, 20), (6, 20)]),
        ]);
        assert_eq!(split_key(ascending, &[], None), SplitKey::None);
        // Two ranges that both grow: the load is divided between them.
        let two = windows(&[
            (1, &[(1, 20), (100, 20)]),
            (1, &[(2, 20), (101, 20)]),
            (1, &[(3, 20), (102, 20)]),
        ]);
        assert_eq!(split_key(two, &[], None), at(100));
        // A window with few samples has no say.
        let few = windows(&[(1, &[(1, 20), (9, 20)]), (1, &[(9, 4)]), (1, &[(1, 20), (9, 20)])]);
        assert_eq!(split_key(few, &[], None), at(9));
    }
}
