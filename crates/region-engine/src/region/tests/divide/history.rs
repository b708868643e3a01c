//! S10: in random histories of regions that are split and merged, every region shows the rows of a sorted map
//! of all writes that are in its range, and the memory charged is that of the rows in memory.

use proptest::prelude::*;
use tidewater_common::schema::WriteMode;

use super::family::Family;
use crate::histories::histories;
use crate::region::DivideError;
use crate::region::tests::fixture::*;
use crate::{RowOrder, ScanOptions};

/// Choice of a region.
type Choice = prop::sample::Index;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>),
    /// One write for each row: enough writes to make a merge of their runs due.
    Burst(Vec<u8>),
    Delete(Vec<u8>),
    Flush(Choice),
    Compact(Choice),
    MergeRuns {
        at: Choice,
        owner: bool,
    },
    /// The follower reads the manifest.
    Follow(Choice),
    /// A replica is replaced by one that is restored from images.
    Restore {
        at: Choice,
        from_owner: bool,
        to_owner: bool,
    },
    Split {
        at: Choice,
        cuts: Vec<u8>,
        before_birth: Vec<BeforeBirth>,
    },
    Merge {
        at: Choice,
        before_birth: Vec<BeforeBirth>,
    },
    Scan {
        start: u8,
        end: u8,
    },
    Get(Vec<u8>),
}

/// Step between a division and the first deltas of the children.
#[derive(Debug, Clone)]
enum BeforeBirth {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    MergeRuns { at: Choice, owner: bool },
    Restore { at: Choice, from_owner: bool, to_owner: bool },
}

const KEYS: u8 = 60;
/// Regions of a table at most.
const REGIONS: usize = 8;

fn keys(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..KEYS, 1..most)
}

fn before_birth() -> impl Strategy<Value = Vec<BeforeBirth>> {
    let choice = any::<Choice>;
    let step = prop_oneof![
        3 => keys(12).prop_map(BeforeBirth::Put),
        1 => keys(6).prop_map(BeforeBirth::Delete),
        2 => (choice(), any::<bool>()).prop_map(|(at, owner)| BeforeBirth::MergeRuns { at, owner }),
        1 => (choice(), any::<bool>(), any::<bool>()).prop_map(|(at, from_owner, to_owner)| {
            BeforeBirth::Restore { at, from_owner, to_owner }
        }),
    ];
    prop::collection::vec(step, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let choice = any::<Choice>;
    prop_oneof![
        8 => keys(25).prop_map(Step::Put),
        3 => prop::collection::vec(0..KEYS, 16..24).prop_map(Step::Burst),
        3 => keys(8).prop_map(Step::Delete),
        3 => choice().prop_map(Step::Flush),
        1 => choice().prop_map(Step::Compact),
        4 => (choice(), any::<bool>()).prop_map(|(at, owner)| Step::MergeRuns { at, owner }),
        2 => choice().prop_map(Step::Follow),
        2 => (choice(), any::<bool>(), any::<bool>())
            .prop_map(|(at, from_owner, to_owner)| Step::Restore { at, from_owner, to_owner }),
        3 => (choice(), keys(4), before_birth())
            .prop_map(|(at, cuts, before_birth)| Step::Split { at, cuts, before_birth }),
        2 => (choice(), before_birth())
            .prop_map(|(at, before_birth)| Step::Merge { at, before_birth }),
        2 => (0..KEYS, 0..KEYS).prop_map(|(start, end)| Step::Scan { start, end }),
        2 => keys(10).prop_map(Step::Get),
    ]
}

fn key(number: u8) -> Key {
    (["", "a", "ab", "b"][usize::from(number % 4)].to_owned(), i32::from(number / 4) - 3)
}

fn put(family: &mut Family, numbers: &[u8]) {
    let row = |(position, number): (usize, &u8)| {
        (key(*number), Some(i64::from(*number)), family.note(position))
    };
    let rows: Vec<Row> = numbers.iter().enumerate().map(row).collect();
    family.put(&rows);
}

fn delete(family: &mut Family, numbers: &[u8]) {
    if family.spec.options.write_mode == WriteMode::Upsert {
        let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
        family.delete(&keys);
    }
}

async fn merge_runs(family: &Family, at: usize, owner: bool) {
    let region = &family.regions[at];
    let region = if owner { &region.owner } else { &region.follower };
    region.merge_runs().await.unwrap();
}

/// Returns the row keys that divide a region at some of these keys.
fn cuts_of(family: &Family, at: usize, numbers: &[u8]) -> Vec<Vec<u8>> {
    let range = &family.regions[at].owner.spec().range;
    let keys = numbers.iter().map(|number| row_key(&family.spec, &key(*number)));
    let mut cuts: Vec<Vec<u8>> =
        keys.filter(|key| range.contains(key) && *key != range.start).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

async fn run_before_birth(family: &mut Family, steps: Vec<BeforeBirth>) {
    for step in steps {
        match step {
            BeforeBirth::Put(numbers) => put(family, &numbers),
            BeforeBirth::Delete(numbers) => delete(family, &numbers),
            BeforeBirth::MergeRuns { at, owner } => {
                merge_runs(family, at.index(family.regions.len()), owner).await;
            }
            BeforeBirth::Restore { at, from_owner, to_owner } => {
                let at = at.index(family.regions.len());
                family.restore(at, from_owner, to_owner).await;
            }
        }
        family.check().await;
    }
}

async fn run_step(family: &mut Family, step: Step) {
    let regions = family.regions.len();
    match step {
        Step::Put(numbers) => put(family, &numbers),
        Step::Burst(numbers) => {
            for number in numbers {
                put(family, &[number]);
            }
        }
        Step::Delete(numbers) => delete(family, &numbers),
        Step::Flush(at) => {
            let region = &family.regions[at.index(regions)].owner;
            region.flush().await.unwrap();
            let stats = region.stats();
            assert_eq!((stats.memtable_bytes, stats.unflushed_since_ms), (0, None));
        }
        Step::Compact(at) => family.compact(at.index(regions)).await,
        Step::MergeRuns { at, owner } => merge_runs(family, at.index(regions), owner).await,
        Step::Follow(at) => {
            family.regions[at.index(regions)].follower.load().await.unwrap();
        }
        Step::Restore { at, from_owner, to_owner } => {
            family.restore(at.index(regions), from_owner, to_owner).await;
        }
        Step::Split { at, cuts, before_birth } => {
            let at = at.index(regions);
            let mut cuts = cuts_of(family, at, &cuts);
            cuts.truncate(REGIONS.saturating_sub(regions));
            if cuts.is_empty() {
                return;
            }
            let parent = family.split(at, &cuts).await;
            family.check().await;
            run_before_birth(family, before_birth).await;
            family.bear(&[parent]).await;
        }
        Step::Merge { at, before_birth } if regions > 1 => {
            let at = at.index(regions - 1);
            let parents = match family.merge(at).await {
                Ok(parents) => parents,
                Err(error) => {
                    assert!(matches!(error, DivideError::Unflushed { .. }), "{error}");
                    // Nothing has changed. Once both are flushed, they can be merged.
                    family.check().await;
                    for region in &family.regions[at..at + 2] {
                        region.owner.flush().await.unwrap();
                    }
                    family.merge(at).await.unwrap()
                }
            };
            family.check().await;
            run_before_birth(family, before_birth).await;
            family.bear(&parents).await;
        }
        Step::Merge { .. } => {}
        Step::Scan { start, end } => check_scan(family, start, end).await,
        Step::Get(numbers) => check_get(family, &numbers).await,
    }
    family.check().await;
}

async fn check_scan(family: &Family, start: u8, end: u8) {
    let range = tidewater_common::keys::KeyRange {
        start: row_key(&family.spec, &key(start)),
        end: Some(row_key(&family.spec, &key(end))),
    };
    for region in family.regions.iter().flat_map(|region| [&region.owner, &region.follower]) {
        let expected = family.expected(&range.intersection(&region.spec().range));
        let options = ScanOptions { range: range.clone(), batch_rows: 7, ..all() };
        assert_eq!(scan(region, &options).await.unwrap(), expected);
        let any_order = ScanOptions { order: RowOrder::Any, ..options };
        let by_text = |rows: Vec<Row>| {
            let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        assert_eq!(by_text(scan(region, &any_order).await.unwrap()), by_text(expected));
    }
}

async fn check_get(family: &Family, numbers: &[u8]) {
    let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
    let batch = key_batch(&keys, &family.spec);
    for region in family.regions.iter().flat_map(|region| [&region.owner, &region.follower]) {
        let found = region.get(&batch, &all().projection).await.unwrap();
        let expected = family.expected(&region.spec().range);
        let expected: Vec<Row> = expected.into_iter().filter(|row| keys.contains(&row.0)).collect();
        assert_eq!(rows_of(&found), expected);
    }
}

fn check(steps: Vec<Step>, mode: WriteMode, hashed: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut family = Family::new(mode, hashed).await;
        for step in steps {
            run_step(&mut family, step).await;
        }
        family.finish().await;
    });
}

proptest! {
    #![proptest_config(histories(100))]

    #[test]
    fn divided_upsert_regions_match_oracle(steps in prop::collection::vec(step(), 1..40)) {
        check(steps, WriteMode::Upsert, false);
    }

    #[test]
    fn divided_hashed_upsert_regions_match_oracle(steps in prop::collection::vec(step(), 1..40)) {
        check(steps, WriteMode::Upsert, true);
    }

    #[test]
    fn divided_append_only_regions_match_oracle(steps in prop::collection::vec(step(), 1..40)) {
        check(steps, WriteMode::AppendOnly, false);
    }

    #[test]
    fn divided_hashed_append_only_regions_match_oracle(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        check(steps, WriteMode::AppendOnly, true);
    }
}
