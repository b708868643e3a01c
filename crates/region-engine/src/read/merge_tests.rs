use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array, UInt8Array, UInt64Array};
use arrow::datatypes::{DataType, Int32Type};
use arrow::row::{RowConverter, SortField};
use proptest::prelude::*;
use tidewater_common::ids::ColumnId;

use super::*;
use crate::row_versions::{Numbers, Ops, RowOp, Stamps};

/// Key, sequence, and true for a delete.
type Version = (i32, u64, bool);

fn epoch(sequence: u64) -> u64 {
    sequence / 20
}

fn chunk(versions: &[Version], unique: bool) -> Chunk {
    let keys: ArrayRef = Arc::new(Int32Array::from_iter_values(versions.iter().map(|v| v.0)));
    let converter = RowConverter::new(vec![SortField::new(DataType::Int32)]).unwrap();
    let stamps = Stamps {
        sequences: Numbers::Each(UInt64Array::from_iter_values(versions.iter().map(|v| v.1))),
        epochs: Numbers::Each(UInt64Array::from_iter_values(versions.iter().map(|v| epoch(v.1)))),
        ops: if versions.iter().any(|v| v.2) {
            Ops::Each(UInt8Array::from_iter_values(versions.iter().map(|v| u8::from(v.2))))
        } else {
            Ops::All(RowOp::Put)
        },
    };
    let rows = RowVersions::new([ColumnId(1)].into(), vec![keys.clone()], versions.len(), stamps);
    Chunk::new(rows, converter.convert_columns(&[keys]).unwrap(), unique)
}

fn merge(sources: &[Vec<Version>], rules: MergeRules, piece: usize, target: usize) -> Vec<Version> {
    let unique: Vec<bool> =
        sources.iter().map(|source| source.windows(2).all(|w| w[0].0 != w[1].0)).collect();
    let mut pieces: Vec<_> = sources.iter().map(|source| source.chunks(piece)).collect();
    let mut merge = Merge::new(sources.len(), rules);
    let mut merged = Vec::new();
    loop {
        let step = merge.advance(target);
        if let MergeStep::Feed(source) = step {
            let next = pieces[source].next().map(|versions| chunk(versions, unique[source]));
            merge.feed(source, next);
            continue;
        }
        if let Some(rows) = merge.take().unwrap() {
            assert!(rows.rows() <= target);
            let keys = rows.arrays()[0].as_primitive::<Int32Type>();
            for row in 0..rows.rows() {
                let stamps = rows.stamps();
                let version =
                    (keys.value(row), stamps.sequences.at(row), stamps.ops.deletes_at(row));
                merged.push(version);
            }
        }
        if step == MergeStep::Done {
            return merged;
        }
    }
}

/// Counts the rows that the merge emits for each of the sinces. It must hold no chunk but the current one of each
/// source.
fn count(
    sources: &[Vec<Version>],
    rules: MergeRules,
    sinces: &[Epoch],
    piece: usize,
    target: usize,
) -> Vec<u64> {
    let unique: Vec<bool> =
        sources.iter().map(|source| source.windows(2).all(|w| w[0].0 != w[1].0)).collect();
    let mut pieces: Vec<_> = sources.iter().map(|source| source.chunks(piece)).collect();
    let mut totals = KeptCounts::new(sinces);
    let mut merge = Merge::counting(sources.len(), rules, totals.cleared());
    loop {
        let step = merge.advance(target);
        assert!(merge.pinned.is_empty());
        if let MergeStep::Feed(source) = step {
            let next = pieces[source].next().map(|versions| chunk(versions, unique[source]));
            merge.feed(source, next);
            continue;
        }
        assert!(merge.take_counts(&mut totals) <= target);
        if step == MergeStep::Done {
            return sinces.iter().map(|since| totals.of(*since)).collect();
        }
    }
}

fn model(sources: &[Vec<Version>], rules: MergeRules) -> Vec<Version> {
    let mut all: Vec<Version> = sources.concat();
    all.sort_by_key(|version| (version.0, std::cmp::Reverse(version.1)));
    let since = match rules.versions {
        Versions::Every => return all,
        // Every version is of an epoch at or below this one.
        Versions::Newest => u64::MAX,
        Versions::Since(since) => since,
    };
    // The newest version of each later epoch, and the newest of those up to `since`.
    let (mut later, mut settled): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|version| epoch(version.1) > since);
    later.dedup_by_key(|version| (version.0, epoch(version.1)));
    settled.dedup_by_key(|version| version.0);
    settled.retain(|version| rules.keep_deletes || !version.2);
    let mut kept = [later, settled].concat();
    kept.sort_by_key(|version| (version.0, std::cmp::Reverse(version.1)));
    kept
}

/// Sources with one version per key or with several, each sorted, all sequences different.
fn sources() -> impl Strategy<Value = Vec<Vec<Version>>> {
    let source = (prop::collection::vec((0..40, prop::bool::weighted(0.2)), 0..60), any::<bool>());
    prop::collection::vec(source, 0..9).prop_map(|sources| {
        let mut sequence = 0;
        sources
            .into_iter()
            .map(|(versions, unique)| {
                let mut versions: Vec<Version> = versions
                    .into_iter()
                    .map(|(key, delete)| {
                        sequence += 1;
                        (key, sequence, delete)
                    })
                    .collect();
                versions.sort_by_key(|version| (version.0, std::cmp::Reverse(version.1)));
                if unique {
                    versions.dedup_by_key(|version| version.0);
                }
                versions
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn merge_emits_the_versions_of_a_sort(
        sources in sources(),
        versions in prop_oneof![
            Just(Versions::Every),
            Just(Versions::Newest),
            (0_u64..25).prop_map(Versions::Since),
        ],
        keep_deletes in any::<bool>(),
        piece in 1_usize..20,
        target in 1_usize..50,
    ) {
        let rules = MergeRules { versions, keep_deletes };
        prop_assert_eq!(merge(&sources, rules, piece, target), model(&sources, rules));
    }

    #[test]
    fn one_merge_counts_the_versions_of_all_sinces(
        sources in sources(),
        versions in prop::sample::select(vec![Versions::Every, Versions::Newest, Versions::Since(0)]),
        keep_deletes in any::<bool>(),
        piece in 1_usize..20,
        target in 1_usize..50,
    ) {
        let rules = MergeRules { versions, keep_deletes };
        let sinces: Vec<Epoch> = (0..28).step_by(3).map(Epoch).collect();
        let counts = count(&sources, rules, &sinces, piece, target);
        for (since, counted) in sinces.into_iter().zip(counts) {
            let versions = match versions {
                Versions::Since(_) => Versions::Since(since.get()),
                same => same,
            };
            let expected = model(&sources, MergeRules { versions, keep_deletes }).len();
            prop_assert_eq!(counted, expected as u64, "{:?}", since);
        }
    }
}

#[test]
fn adjacent_sources_are_merged_without_copies() {
    let sources: Vec<Vec<Version>> =
        (0..4).map(|n| (n * 100..n * 100 + 100).map(|key| (key, 1, false)).collect()).collect();
    let rules = MergeRules { versions: Versions::Newest, keep_deletes: false };
    assert_eq!(merge(&sources, rules, 1_000, 1_000), model(&sources, rules));
    // A single segment of a single chunk is not copied.
    let mut single = Merge::new(1, rules);
    let fed = chunk(&sources[0], true);
    let column = fed.rows.arrays()[0].clone();
    single.feed(0, Some(fed));
    assert_eq!(single.advance(1_000), MergeStep::Feed(0));
    let taken = single.take().unwrap().unwrap();
    assert!(taken.arrays()[0].to_data().ptr_eq(&column.to_data()));
}

#[test]
fn merged_batches_are_limited_in_bytes() {
    let wide = |sequence: u64, keys: std::ops::Range<i32>| {
        let rows = keys.len();
        let keys: ArrayRef =
            Arc::new(Int32Array::from_iter_values(keys.map(|key| 2 * key + sequence as i32)));
        let body = vec![b'x'; 1 << 20];
        let bodies: ArrayRef = Arc::new(BinaryArray::from_iter_values(vec![&body; rows]));
        let converter = RowConverter::new(vec![SortField::new(DataType::Int32)]).unwrap();
        let stamps = Stamps {
            sequences: Numbers::All(sequence),
            epochs: Numbers::All(0),
            ops: Ops::All(RowOp::Put),
        };
        let ids = [ColumnId(1), ColumnId(2)].into();
        let versions = RowVersions::new(ids, vec![keys.clone(), bodies], rows, stamps);
        Chunk::new(versions, converter.convert_columns(&[keys]).unwrap(), true)
    };
    let rules = MergeRules { versions: Versions::Newest, keep_deletes: false };
    // Single rows of two sources, and long segments of one.
    for sources in [1, 2] {
        let mut merge = Merge::new(sources, rules);
        for source in 0..sources {
            merge.feed(source, Some(wide(source as u64, 0..20)));
        }
        let mut sizes = Vec::new();
        loop {
            let step = merge.advance(1_000);
            match step {
                MergeStep::Feed(source) => merge.feed(source, None),
                _ => sizes.extend(merge.take().unwrap().map(|rows| rows.rows())),
            }
            if step == MergeStep::Done {
                break;
            }
        }
        assert!(sizes.iter().all(|rows| (1..=8).contains(rows)), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 20 * sources);
    }
}

// Each chunk holds ten versions of one key, of which one is emitted.
#[test]
fn merge_holds_few_exhausted_chunks() {
    let rules = MergeRules { versions: Versions::Newest, keep_deletes: false };
    let versions_of = |key: i32| {
        let keys: ArrayRef = Arc::new(Int32Array::from(vec![key; 10]));
        let bodies: ArrayRef =
            Arc::new(BinaryArray::from_iter_values(vec![vec![b'x'; 100 << 10]; 10]));
        let converter = RowConverter::new(vec![SortField::new(DataType::Int32)]).unwrap();
        let stamps = Stamps {
            sequences: Numbers::Each(UInt64Array::from_iter_values((0..10).rev())),
            epochs: Numbers::All(0),
            ops: Ops::All(RowOp::Put),
        };
        let ids = [ColumnId(1), ColumnId(2)].into();
        let rows = RowVersions::new(ids, vec![keys.clone(), bodies], 10, stamps);
        Chunk::new(rows, converter.convert_columns(&[keys]).unwrap(), false)
    };
    let mut merge = Merge::new(1, rules);
    let mut keys = 0..40;
    let mut most = 0;
    let mut rows = 0;
    loop {
        let step = merge.advance(1_000);
        most = most.max(merge.pinned.len());
        match step {
            MergeStep::Feed(source) => merge.feed(source, keys.next().map(versions_of)),
            MergeStep::Full | MergeStep::Done => {
                rows += merge.take().unwrap().map_or(0, |rows| rows.rows());
                if step == MergeStep::Done {
                    break;
                }
            }
        }
    }
    assert_eq!(rows, 40);
    assert!(most <= 10, "{most} chunks of 1 MB");
}
