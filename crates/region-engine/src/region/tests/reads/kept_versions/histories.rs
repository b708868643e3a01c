//! Counts after random histories: they are those of the stored versions, and of the versions that compactions leave.

use proptest::prelude::*;
use tidewater_common::schema::WriteMode;

use super::{ALL_READABLE, check, compacted, kept, key, rows};
use crate::compaction::Scope;
use crate::histories::histories;
use crate::region::tests::fixture::RegionFixture;
use crate::storage::Storage;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    /// A new epoch; this many of the last ones can be read.
    BeginEpoch(u64),
    Flush,
    MergeRuns,
    Compact(Scope),
    /// A bulk-load file, whose rows have one sequence and one epoch.
    Adopt(Vec<u8>),
}

fn steps(keys: u8) -> impl Strategy<Value = Vec<Step>> {
    let numbers = move || prop::collection::vec(0..keys, 1..8);
    let step = prop_oneof![
        8 => numbers().prop_map(Step::Put),
        4 => numbers().prop_map(Step::Delete),
        6 => prop::sample::select(vec![1, 4, ALL_READABLE, ALL_READABLE]).prop_map(Step::BeginEpoch),
        3 => Just(Step::Flush),
        2 => Just(Step::MergeRuns),
        1 => Just(Step::Compact(Scope::Due)),
        1 => Just(Step::Compact(Scope::Whole)),
        1 => numbers().prop_map(Step::Adopt),
    ];
    prop::collection::vec(step, 1..40)
}

async fn run(fixture: &mut RegionFixture, step: Step) {
    match step {
        Step::Put(numbers) => fixture.put(&rows(numbers, "put")),
        Step::Delete(numbers) => {
            fixture.delete(&numbers.into_iter().map(key).collect::<Vec<_>>());
        }
        Step::BeginEpoch(readable) => fixture.begin_epoch(readable),
        Step::Flush => {
            fixture.region.flush().await.unwrap();
        }
        Step::MergeRuns => fixture.region.merge_runs().await.unwrap(),
        Step::Compact(scope) => {
            fixture.compact(scope).await;
        }
        Step::Adopt(mut numbers) => {
            numbers.sort_unstable();
            numbers.dedup();
            fixture.adopt(&rows(numbers, "adopted")).await;
            fixture.region.record_obligations().await.unwrap();
        }
    }
}

fn check_history(steps: Vec<Step>, since: prop::sample::Index) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
        for step in steps {
            run(&mut fixture, step).await;
            check(&fixture).await;
        }
        // Newer than the adopted rows: a compaction keeps deletes that may hide rows in memory.
        fixture.put(&rows([0], "last"));
        let readable: Vec<u64> = (fixture.since..=fixture.epoch).collect();
        let since = *since.get(&readable);
        let counted = kept(&fixture.region, [since]).await;
        assert_eq!(counted, [compacted(&mut fixture, since).await], "since {since}");
        check(&fixture).await;
    });
}

proptest! {
    #![proptest_config(histories(80))]

    // Every file has rows of every key.
    #[test]
    fn counts_of_few_keys_match_stored_versions(
        steps in steps(3),
        since in any::<prop::sample::Index>(),
    ) {
        check_history(steps, since);
    }

    // Some files share no key with others.
    #[test]
    fn counts_of_many_keys_match_stored_versions(
        steps in steps(60),
        since in any::<prop::sample::Index>(),
    ) {
        check_history(steps, since);
    }
}
