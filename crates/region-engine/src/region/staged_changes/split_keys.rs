//! Keys that divide rows in about equal parts (pure).

use tidewater_common::keys::KeyRange;

/// Key of a row, and the number of rows from it up to the next key of the same file or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeySample {
    pub(super) key: Vec<u8>,
    pub(super) rows: u64,
}

/// Returns up to `parts - 1` keys that divide the samples in parts of about equal numbers of rows: ascending, inside of
/// the range, and none the first of all keys.
pub(super) fn split_keys(
    mut samples: Vec<KeySample>,
    range: &KeyRange,
    parts: usize,
) -> Vec<Vec<u8>> {
    samples.retain(|sample| range.contains(&sample.key));
    samples.sort_by(|a, b| a.key.cmp(&b.key));
    let total: u64 = samples.iter().map(|sample| sample.rows).sum();
    // Part that begins after this number of rows, from 0.
    let part_after = |rows: u64| u128::from(rows) * (parts as u128) / u128::from(total.max(1));
    let mut last = match samples.first() {
        Some(first) => first.key.clone().max(range.start.clone()),
        None => return Vec::new(),
    };
    let mut keys = Vec::new();
    let mut before = 0;
    let mut part = 0;
    for sample in samples {
        if part_after(before) > part && sample.key > last {
            part = part_after(before);
            last.clone_from(&sample.key);
            keys.push(sample.key);
        }
        before += sample.rows;
    }
    keys
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(keys: &[(u8, u64)]) -> Vec<KeySample> {
        keys.iter().map(|(key, rows)| KeySample { key: vec![*key], rows: *rows }).collect()
    }

    #[test]
    fn split_keys_divide_rows_in_equal_parts() {
        let even: Vec<(u8, u64)> = (0..100).map(|key| (key, 10)).collect();
        type Case<'a> = (&'a [(u8, u64)], usize, &'a [u8]);
        let cases: &[Case<'_>] = &[
            (&even, 0, &[]),
            (&even, 1, &[]),
            (&even, 2, &[50]),
            (&even, 4, &[25, 50, 75]),
            (&[], 4, &[]),
            (&[(7, 1_000)], 4, &[]),
            // Two files from the same first key.
            (&[(7, 10), (7, 10)], 2, &[]),
            (&[(1, 10), (9, 10), (1, 10), (9, 10)], 2, &[9]),
            (&[(1, 1), (2, 1_000), (3, 1), (4, 1)], 2, &[3]),
            // A part of more rows than its share.
            (&[(1, 100), (2, 700), (3, 10), (4, 190)], 3, &[3]),
            (&[(1, 10), (2, 10), (3, 10)], 9, &[2, 3]),
        ];
        for (input, parts, expected) in cases {
            let found = split_keys(samples(input), &KeyRange::whole(), *parts);
            let expected: Vec<Vec<u8>> = expected.iter().map(|key| vec![*key]).collect();
            assert_eq!(found, expected, "{input:?} in {parts}");
        }
    }

    proptest! {
        #[test]
        fn split_keys_ascend_inside_the_range(
            input in prop::collection::vec((any::<u8>(), 1_u64..1_000), 0..60),
            bounds in (any::<u8>(), any::<u8>()),
            parts in 0_usize..20,
        ) {
            let range = KeyRange::new(vec![bounds.0], Some(vec![bounds.1]));
            let keys = split_keys(samples(&input), &range, parts);
            prop_assert!(keys.len() < parts.max(1));
            prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(keys.iter().all(|key| range.contains(key) && *key > range.start));
        }
    }
}
