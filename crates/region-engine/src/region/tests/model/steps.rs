//! What happens to a region in a random history.

use proptest::prelude::*;

use super::world::Key;
use crate::compaction::Scope;

/// Who carries a plan out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Here,
    /// A compactor that knows nothing but what it is sent.
    Elsewhere,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Put(Vec<(u8, Option<i64>)>),
    /// Each row is a write: so many that their runs are merged.
    Burst(Vec<(u8, Option<i64>)>),
    Delete(Vec<u8>),
    Flush,
    MergeRuns,
    Compact(Scope, Place),
    /// Two compactors carry out one plan at the same time.
    CompactTwice(Scope),
    /// A compactor is told to stop when it was woken so many times.
    CancelJob(Scope, u8),
    /// A job is planned and its files are merged, ..
    BeginJob(Scope, Place),
    /// .. and committed later, by another process.
    CommitJob,
    Truncate,
    AddColumn,
    DropColumn,
    Settle,
    /// Rows come as a file, and are published under this owner or the next one.
    Adopt {
        numbers: Vec<u8>,
        next_owner: bool,
    },
    /// Rows come as a file into a staging area, which begins with it.
    Stage(Vec<u8>),
    PublishArea,
    AbandonArea,
    /// Another region takes over all files.
    Copy,
    BuildIndexes,
    /// A replica that has followed the log, and merged its rows, reads the manifest.
    Follow,
    Reopen,
    /// A replica that has followed the log, or part of it by a snapshot, becomes the owner.
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

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Here), Just(Place::Elsewhere)]
}

/// `keys`: how many different ones there are; with few, every file has rows of every key.
pub(super) fn step(keys: u8) -> impl Strategy<Value = Step> {
    let row = (0..keys, prop::option::weighted(0.8, 0_i64..100));
    prop_oneof![
        10 => prop::collection::vec(row.clone(), 1..25).prop_map(Step::Put),
        2 => prop::collection::vec(row, 12..20).prop_map(Step::Burst),
        3 => prop::collection::vec(0..keys, 1..8).prop_map(Step::Delete),
        4 => Just(Step::Flush),
        3 => Just(Step::MergeRuns),
        3 => (scope(), place()).prop_map(|(scope, place)| Step::Compact(scope, place)),
        1 => scope().prop_map(Step::CompactTwice),
        1 => (scope(), 0..40_u8).prop_map(|(scope, wakes)| Step::CancelJob(scope, wakes)),
        2 => (scope(), place()).prop_map(|(scope, place)| Step::BeginJob(scope, place)),
        2 => Just(Step::CommitJob),
        1 => Just(Step::Truncate),
        1 => Just(Step::AddColumn),
        1 => Just(Step::DropColumn),
        1 => Just(Step::Settle),
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
