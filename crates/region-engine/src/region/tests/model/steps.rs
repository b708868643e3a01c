//! Steps of a random history of a region.

use proptest::prelude::*;

use crate::compaction::Scope;
use crate::region::tests::fixture::Key;

/// Place where a compaction runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum CompactionSite {
    Local,
    /// A compactor that knows only the requests that it receives.
    Remote,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Put(Vec<(u8, Option<i64>)>),
    /// One write for each row: enough writes to make a merge of their runs due.
    Burst(Vec<(u8, Option<i64>)>),
    Delete(Vec<u8>),
    /// A new epoch; this many of the last ones can be read.
    BeginEpoch(u64),
    Flush,
    MergeRuns,
    Compact(Scope, CompactionSite),
    /// Two compactors run the same plan concurrently.
    CompactTwice(Scope),
    /// A job on a compactor is cancelled after this number of wake-ups.
    CancelJob(Scope, u8),
    /// A job is planned and its output files are written, ...
    BeginJob(Scope, CompactionSite),
    /// ... and committed later, by another process.
    CommitJob,
    Truncate,
    AddColumn,
    DropColumn,
    RecordObligations,
    /// A bulk-load file is adopted, and published under this owner or the next one.
    Adopt {
        numbers: Vec<u8>,
        next_owner: bool,
    },
    /// A bulk-load file is staged in the open area; opens one if there is none.
    Stage(Vec<u8>),
    PublishArea,
    AbandonArea,
    /// Another region adopts all files.
    Copy,
    BuildIndexes,
    /// A replica that has followed the log and merged its runs reads the manifest.
    Follow,
    Reopen,
    /// A replica that has followed the log, or starts from a snapshot, becomes the owner.
    Failover {
        snapshot_at: prop::sample::Index,
    },
    Scan {
        start: u8,
        end: Option<u8>,
        limit: Option<u64>,
        batch_rows: usize,
        above: Option<i64>,
    },
    Get(Vec<u8>),
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![3 => Just(Scope::Due), 1 => Just(Scope::Whole)]
}

fn site() -> impl Strategy<Value = CompactionSite> {
    prop_oneof![Just(CompactionSite::Local), Just(CompactionSite::Remote)]
}

/// Strategy for one step. `keys`: number of distinct keys; with few, every file has rows of every key.
pub(super) fn step(keys: u8) -> impl Strategy<Value = Step> {
    let row = (0..keys, prop::option::weighted(0.8, 0_i64..100));
    prop_oneof![
        10 => prop::collection::vec(row.clone(), 1..25).prop_map(Step::Put),
        2 => prop::collection::vec(row, 12..20).prop_map(Step::Burst),
        3 => prop::collection::vec(0..keys, 1..8).prop_map(Step::Delete),
        4 => (0_u64..4).prop_map(Step::BeginEpoch),
        4 => Just(Step::Flush),
        3 => Just(Step::MergeRuns),
        3 => (scope(), site()).prop_map(|(scope, site)| Step::Compact(scope, site)),
        1 => scope().prop_map(Step::CompactTwice),
        1 => (scope(), 0..40_u8).prop_map(|(scope, wakes)| Step::CancelJob(scope, wakes)),
        2 => (scope(), site()).prop_map(|(scope, site)| Step::BeginJob(scope, site)),
        2 => Just(Step::CommitJob),
        1 => Just(Step::Truncate),
        1 => Just(Step::AddColumn),
        1 => Just(Step::DropColumn),
        1 => Just(Step::RecordObligations),
        2 => (prop::collection::vec(0..keys, 1..20), any::<bool>())
            .prop_map(|(numbers, next_owner)| Step::Adopt { numbers, next_owner }),
        2 => prop::collection::vec(0..keys, 1..20).prop_map(Step::Stage),
        1 => Just(Step::PublishArea),
        1 => Just(Step::AbandonArea),
        1 => Just(Step::Copy),
        1 => Just(Step::BuildIndexes),
        1 => Just(Step::Follow),
        1 => Just(Step::Reopen),
        1 => any::<prop::sample::Index>().prop_map(|snapshot_at| Step::Failover { snapshot_at }),
        3 => (
            0..keys,
            prop::option::of(0..keys),
            prop::option::of(0_u64..50),
            1_usize..40,
            prop::option::of(0_i64..100),
        )
            .prop_map(|(start, end, limit, batch_rows, above)| {
                Step::Scan { start, end, limit, batch_rows, above }
            }),
        2 => prop::collection::vec(0..keys, 1..10).prop_map(Step::Get),
    ]
}

pub(super) fn steps(keys: u8) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(keys), 1..50)
}

pub(super) fn key(number: u8) -> Key {
    (["", "a", "ab", "b"][usize::from(number % 4)].to_owned(), i32::from(number / 4) - 3)
}
