use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Least and greatest key, least and greatest time; `None`: unknown.
type Case = (u8, u8, Option<(i64, i64)>);

fn parts(cases: &[Case], sharing: KeySharing) -> Vec<Vec<usize>> {
    let keys: Vec<([u8; 1], [u8; 1])> = cases.iter().map(|case| ([case.0], [case.1])).collect();
    let extents: Vec<Extent<'_>> = cases
        .iter()
        .zip(&keys)
        .map(|(case, (low, high))| Extent {
            keys: (low, high),
            times: case.2.map(|(min, max)| TimeRange { min, max }),
        })
        .collect();
    independent(&extents, sharing)
}

#[test]
fn sources_that_share_no_key_are_in_different_parts() {
    type Expected = &'static [&'static [usize]];
    let windows: &[Case] = &[(0, 9, Some((0, 5))), (0, 9, Some((6, 9))), (1, 8, Some((10, 12)))];
    let cases: &[(&[Case], KeySharing, Expected)] = &[
        (&[], KeySharing::KeysAndTimes, &[]),
        (windows, KeySharing::Keys, &[&[0, 1, 2]]),
        (windows, KeySharing::KeysAndTimes, &[&[0], &[1], &[2]]),
        (windows, KeySharing::Never, &[&[0], &[1], &[2]]),
        // Times that touch.
        (&[(0, 9, Some((0, 5))), (0, 9, Some((5, 9)))], KeySharing::KeysAndTimes, &[&[0, 1]]),
        // A source of unknown times joins all whose keys it overlaps.
        (
            &[(0, 4, Some((0, 1))), (0, 4, Some((2, 3))), (3, 3, None), (6, 9, Some((0, 9)))],
            KeySharing::KeysAndTimes,
            &[&[0, 1, 2], &[3]],
        ),
        // By times first, then by keys: the second source connects the keys of the others.
        (
            &[(0, 2, Some((0, 1))), (0, 9, Some((5, 6))), (7, 9, Some((1, 1)))],
            KeySharing::KeysAndTimes,
            &[&[0], &[2], &[1]],
        ),
        // Three windows, the newest with two overlapping flushes.
        (
            &[
                (0, 9, Some((20, 25))),
                (0, 9, Some((0, 9))),
                (0, 9, Some((22, 29))),
                (0, 9, Some((10, 19))),
            ],
            KeySharing::KeysAndTimes,
            &[&[1], &[3], &[0, 2]],
        ),
    ];
    for (sources, sharing, expected) in cases {
        let mut found = parts(sources, *sharing);
        found.sort();
        let mut expected: Vec<Vec<usize>> = expected.iter().map(|part| part.to_vec()).collect();
        expected.sort();
        assert_eq!(found, expected, "{sources:?} {sharing:?}");
    }
}

#[test]
fn key_sharing_depends_on_mode_and_time_column() {
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{Column, ColumnType};

    let column = |id: u32, name: &str| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type: if id == 2 {
            ColumnType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None)
        } else {
            ColumnType::Int64
        },
        nullable: false,
        default: None,
    };
    let schema = |key: &[u32], time: Option<u32>| {
        let columns = vec![column(1, "device"), column(2, "at"), column(3, "v")];
        let key = key.iter().map(|id| ColumnId(*id)).collect();
        TableSchema::new(SchemaVersion(1), columns, key, time.map(ColumnId), ColumnId(4)).unwrap()
    };
    let upsert = TableOptions::upsert();
    let append = TableOptions::append_only();
    let cases = [
        (schema(&[1, 2], Some(2)), &upsert, KeySharing::KeysAndTimes),
        (schema(&[1], Some(2)), &upsert, KeySharing::Keys),
        (schema(&[1, 2], None), &upsert, KeySharing::Keys),
        (schema(&[1], Some(2)), &append, KeySharing::Never),
    ];
    for (schema, options, expected) in cases {
        assert_eq!(KeySharing::of(&schema, options), expected, "{schema:?}");
    }
}

/// A row version: device, time, sequence, and true for a delete.
type Row = (u8, i64, u64, bool);

/// Rows of the newest versions that are not deleted.
fn naive_merge<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeMap<(u8, i64), u64> {
    let mut newest: BTreeMap<(u8, i64), (u64, bool)> = BTreeMap::new();
    for (device, time, sequence, deleted) in rows {
        let entry = newest.entry((*device, *time)).or_insert((*sequence, *deleted));
        if *sequence >= entry.0 {
            *entry = (*sequence, *deleted);
        }
    }
    newest.into_iter().filter(|(_, v)| !v.1).map(|(key, v)| (key, v.0)).collect()
}

proptest! {
    #[test]
    fn consecutive_parts_equal_the_naive_merge(
        rows in prop::collection::vec((0_u8..6, 0_i64..12, 0_usize..8, any::<bool>()), 0..80),
        cut in 1_i64..6,
        unknown in prop::collection::vec(any::<bool>(), 40),
    ) {
        // Sources hold few times each, as the files of time windows do.
        let mut sources: BTreeMap<(i64, usize), Vec<Row>> = BTreeMap::new();
        for (sequence, (device, time, flush, deleted)) in (0_u64..).zip(rows) {
            sources.entry((time / cut, flush % 3)).or_default().push((device, time, sequence, deleted));
        }
        let sources: Vec<Vec<Row>> = sources.into_values().collect();
        let keys: Vec<([u8; 9], [u8; 9])> = sources
            .iter()
            .map(|rows| {
                let key = |row: &Row| {
                    let mut key = [row.0; 9];
                    key[1..].copy_from_slice(&row.1.to_be_bytes());
                    key
                };
                (rows.iter().map(key).min().unwrap(), rows.iter().map(key).max().unwrap())
            })
            .collect();
        let extents: Vec<Extent<'_>> = sources
            .iter()
            .zip(&keys)
            .zip(&unknown)
            .map(|((rows, (low, high)), unknown)| Extent {
                keys: (low, high),
                times: (!unknown).then(|| TimeRange {
                    min: rows.iter().map(|row| row.1).min().unwrap(),
                    max: rows.iter().map(|row| row.1).max().unwrap(),
                }),
            })
            .collect();
        let expected = naive_merge(sources.iter().flatten());
        for sharing in [KeySharing::KeysAndTimes, KeySharing::Keys] {
            let parts = independent(&extents, sharing);
            let mut members: Vec<usize> = parts.concat();
            members.sort_unstable();
            prop_assert_eq!(members, (0..sources.len()).collect::<Vec<_>>());
            let mut found = Vec::new();
            for part in &parts {
                prop_assert!(part.is_sorted());
                found.extend(naive_merge(part.iter().flat_map(|source| &sources[*source])));
            }
            found.sort_unstable();
            prop_assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
