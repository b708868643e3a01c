//! Runs stay few, and bytes are accounted for.

use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::memtable::FAN_IN;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

#[tokio::test]
async fn many_small_writes_become_few_runs() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    for n in 0..300 {
        world.put(&[(("k".to_owned(), n % 70), Some(i64::from(n)), "n".to_owned())]);
        if world.region.merge_due() {
            world.region.merge_runs().await.unwrap();
        }
        assert!(world.region.stats().runs <= 3 * FAN_IN);
    }
    world.check().await;
    let stats = world.region.stats();
    assert!(stats.memtable_bytes > 0 && stats.unflushed_since_ms.is_some());
    world.region.flush().await.unwrap();
    let stats = world.region.stats();
    assert_eq!((stats.runs, stats.memtable_bytes, stats.unflushed_since_ms), (0, 0, None));
    assert_eq!(stats.file_rows, 70);
    world.check().await;
}

#[tokio::test]
async fn runs_merge_while_a_flush_is_under_way_without_mixing() {
    let mut world = World::new(Storage::memory(), WriteMode::AppendOnly, true).await;
    for round in 0..10 {
        for n in 0..40 {
            world.put(&[((format!("{round}"), n), None, "n".to_owned())]);
        }
        let (flushed, merged) = tokio::join!(world.region.flush(), world.region.merge_runs());
        flushed.unwrap();
        merged.unwrap();
        world.check().await;
    }
}

#[tokio::test]
async fn runs_merge_again_after_a_flush_was_dropped() {
    let store = FaultyStore::new();
    let mut world = World::new(store.storage(), WriteMode::Upsert, false).await;
    for n in 0..20 {
        world.put(&[(("k".to_owned(), n), None, "n".to_owned())]);
    }
    // The files cannot be written, so the flush does not get past them.
    store.plan(|call| match call.operation {
        Operation::Put => Fault::LostAnswer,
        _ => Fault::None,
    });
    let region = world.region.clone();
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
    assert!(region.merge_due());
    region.merge_runs().await.unwrap();
    assert!(!region.merge_due(), "{} runs", region.stats().runs);
    world.check().await;
    world.region.flush().await.unwrap();
    world.check().await;
}
