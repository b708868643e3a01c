//! Number of runs, and memory accounting.

use tidewater_common::schema::WriteMode;

use crate::memtable::FAN_IN;
use crate::region::tests::fixture::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

#[tokio::test]
async fn small_writes_are_merged_to_few_runs() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for n in 0..300 {
        fixture.put(&[(("k".to_owned(), n % 70), Some(i64::from(n)), "n".to_owned())]);
        if fixture.region.is_merge_due() {
            fixture.region.merge_runs().await.unwrap();
        }
        assert!(fixture.region.stats().runs <= 3 * FAN_IN);
    }
    fixture.check().await;
    let stats = fixture.region.stats();
    assert!(stats.memtable_bytes > 0 && stats.unflushed_since_ms.is_some());
    fixture.region.flush().await.unwrap();
    let stats = fixture.region.stats();
    assert_eq!((stats.runs, stats.memtable_bytes, stats.unflushed_since_ms), (0, 0, None));
    assert_eq!(stats.file_rows, 70);
    fixture.check().await;
}

#[tokio::test]
async fn runs_merge_during_flush_without_mixing() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, true).await;
    for round in 0..10 {
        for n in 0..40 {
            fixture.put(&[((format!("{round}"), n), None, "n".to_owned())]);
        }
        let (flushed, merged) = tokio::join!(fixture.region.flush(), fixture.region.merge_runs());
        flushed.unwrap();
        merged.unwrap();
        fixture.check().await;
    }
}

#[tokio::test]
async fn runs_merge_after_flush_is_dropped() {
    let store = FaultyStore::new();
    let mut fixture = RegionFixture::new(store.storage(), WriteMode::Upsert, false).await;
    for n in 0..20 {
        fixture.put(&[(("k".to_owned(), n), None, "n".to_owned())]);
    }
    // The writes never return, so the flush never completes.
    store.plan(|call| match call.operation {
        Operation::Put => Fault::LostAnswer,
        _ => Fault::None,
    });
    let region = fixture.region.clone();
    let mut flush = Box::pin(region.flush());
    while region.contents.lock().frozen.is_none() {
        tokio::select! {
            biased;
            done = &mut flush => panic!("{done:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(flush);
    store.plan(|_| Fault::None);
    assert!(region.is_merge_due());
    region.merge_runs().await.unwrap();
    assert!(!region.is_merge_due(), "{} runs", region.stats().runs);
    fixture.check().await;
    fixture.region.flush().await.unwrap();
    fixture.check().await;
}
