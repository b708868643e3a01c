//! Compaction of all files of a region in passes: many runs within little memory.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::WriteMode;

use crate::compaction::admission::AdmissionError;
use crate::compaction::estimate::OVERHEAD;
use crate::compaction::{Attempt, CompactionOptions, Scope};
use crate::env::{EngineOptions, RegionEnv};
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{EngineError, Region};

/// Runs of the test regions.
const RUNS: i32 = 137;

/// A region of [`RUNS`] overlapping files, with overwritten and deleted rows.
async fn fixture(mode: WriteMode) -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), mode, false).await;
    for run in 0..RUNS {
        let number = |row: i32| (run * 7 + row * 13) % 97;
        let rows: Vec<Row> = (0..12)
            .map(|row| ((format!("k{}", row % 3), number(row)), Some(run.into()), run.to_string()))
            .collect();
        fixture.put(&rows);
        if mode == WriteMode::Upsert && run % 5 == 0 {
            fixture.delete(&[rows[run as usize % 12].0.clone()]);
        }
        fixture.region.flush().await.unwrap();
    }
    fixture
}

/// Another process that opens the region with these limits, as its next owner.
async fn owner_with(
    fixture: &mut RegionFixture,
    max_runs: usize,
    memory_bytes: u64,
) -> Arc<Region> {
    let env = fixture.env();
    let compaction = CompactionOptions { max_runs, memory_bytes, ..env.options.compaction.clone() };
    let options = EngineOptions { compaction, ..env.options.clone() };
    let env = RegionEnv::new(env.storage, env.clock, env.ids, env.memory, options);
    let region = Region::new(env, fixture.spec.clone(), Sequence(0), Sequence(0)).unwrap();
    fixture.term += 1;
    region.take_ownership(owner(fixture.term), GROUP).await.unwrap();
    fixture.region = region.clone();
    region
}

fn files(region: &Region) -> usize {
    region.files().len()
}

#[tokio::test]
async fn many_runs_are_merged_within_job_limits() {
    for (mode, max_runs, more_memory) in [
        (WriteMode::Upsert, 16, 1 << 30),
        (WriteMode::Upsert, 1_000, 300_000),
        (WriteMode::AppendOnly, 16, 300_000),
    ] {
        let context = format!("{mode:?}, {max_runs} runs, {more_memory} bytes");
        let mut fixture = fixture(mode).await;
        assert_eq!(files(&fixture.region), RUNS as usize);
        let expected = fixture.expected_rows();
        let memory_bytes = OVERHEAD + more_memory;
        let region = owner_with(&mut fixture, max_runs, memory_bytes).await;
        let planned = region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
        assert!(planned.job().inputs.len() <= max_runs, "{context}");
        assert!(planned.job().sub_job_bytes() <= memory_bytes, "{context}");
        assert!(planned.remainder().is_some_and(|left| left.runs > 1), "{context}");
        drop(planned);
        let attempt = Attempt::default();
        let report = region.compact(Scope::Whole, Epoch(0), &attempt).await.unwrap().unwrap();
        assert!(report.passes > 9, "{context}: {report:?}");
        assert_eq!((report.remainder, attempt.progress.total().0), (None, report.passes - 1));
        assert_eq!(attempt.progress.total().1.rows_read, report.done.rows_read, "{context}");
        assert!(region.compact(Scope::Whole, Epoch(0), &attempt).await.unwrap().is_none());
        assert_eq!(scan(&region, &all()).await.unwrap(), expected, "{context}");
        fixture.check().await;
        if mode == WriteMode::Upsert {
            let files = region.files();
            assert_eq!(files.iter().map(|file| file.deletes).sum::<u64>(), 0, "{context}");
        }
    }
}

#[tokio::test]
async fn interrupted_request_keeps_its_committed_passes() {
    let mut fixture = fixture(WriteMode::Upsert).await;
    let region = owner_with(&mut fixture, 8, 1 << 30).await;
    let attempt = Attempt::default();
    let interrupt = async {
        while attempt.progress.total().0 < 3 {
            tokio::task::yield_now().await;
        }
        attempt.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(region.compact(Scope::Whole, Epoch(0), &attempt), interrupt);
    assert!(matches!(ended, Err(EngineError::Cancelled { .. })), "{ended:?}");
    fixture.check().await;
    // Without an interruption it takes 20. The next owner continues.
    let region = owner_with(&mut fixture, 8, 1 << 30).await;
    let report =
        region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap().unwrap();
    assert!((1..=17).contains(&report.passes), "{report:?}");
    fixture.check().await;
}

#[tokio::test]
async fn rows_written_during_passes_do_not_prolong_the_request() {
    let mut fixture = fixture(WriteMode::AppendOnly).await;
    let region = owner_with(&mut fixture, 16, 1 << 30).await;
    let first = region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    let through = first.remainder().unwrap().through;
    drop(first);
    fixture.put(&[(("k0".to_owned(), 5), Some(1), "later".to_owned())]);
    fixture.region.flush().await.unwrap();
    let later = Scope::Through(through);
    let planned = region.plan_compaction(later, Epoch(0)).await.unwrap().unwrap();
    assert_eq!(planned.remainder().map(|left| left.through), Some(through));
    assert!(planned.job().inputs.iter().all(|file| file.max_sequence() <= through));
}

#[tokio::test]
async fn job_above_the_memory_of_the_process_is_refused() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for run in 0..4 {
        fixture.put(&[(("k".to_owned(), 1), Some(1), run.to_string())]);
        fixture.region.flush().await.unwrap();
    }
    let region = owner_with(&mut fixture, 16, OVERHEAD).await;
    for scope in [Scope::Due, Scope::Whole] {
        let refused = region.compact(scope, Epoch(0), &Attempt::default()).await;
        let Err(EngineError::NotAdmitted { why: AdmissionError::TooLarge { needed, all }, .. }) =
            refused
        else {
            panic!("{refused:?}");
        };
        assert!(needed > all && all == OVERHEAD, "{needed} of {all}");
    }
    assert_eq!((files(&region), region.compactions_due().len()), (4, 1));
    fixture.check().await;
    let region = owner_with(&mut fixture, 16, OVERHEAD + (1 << 20)).await;
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap().unwrap();
    fixture.check().await;
}
