//! Garbage collection while regions share the files of a parent.

use std::sync::Arc;

use tidewater_common::clock::Clock;
use tidewater_common::ids::Epoch;
use tokio::sync::mpsc;

use super::begin::{child, fixture, halves, rows, seal};
use crate::Region;
use crate::compaction::{Attempt, Scope};
use crate::gc::{GarbageCollector, GcRequest};
use crate::region::tests::fixture::*;
use crate::storage::Storage;

/// Collects garbage that is older than 500 ms, and lets a second pass. Returns the number of deleted objects.
async fn collect(fixture: &RegionFixture) -> u64 {
    let request = GcRequest {
        floor_ms: fixture.clock.now_ms() - 500,
        dry_run: false,
        table: None,
        max_deletions: 1_000,
    };
    let (sender, _receiver) = mpsc::channel(1_000);
    let report = GarbageCollector::new(fixture.env()).collect(&request, &sender).await.unwrap();
    assert_eq!(report.unreadable, []);
    fixture.clock.advance(1_000);
    report.deleted
}

async fn check(children: &[Arc<Region>]) {
    for (child, numbers) in children.iter().zip([0..7, 7..20]) {
        child.load().await.unwrap();
        assert_eq!(scan(child, &all()).await.unwrap(), rows(numbers));
    }
}

#[tokio::test]
async fn files_of_parent_stay_until_no_child_needs_them() {
    let fixture = fixture(Storage::memory()).await;
    let file = fixture.region.files().remove(0).path();
    // The children share the index as well.
    fixture.region.build_indexes(&crate::index::Bloom).await.unwrap();
    fixture.clock.advance(1_000);
    let parent = seal(&fixture.region).await;
    let children: Vec<Arc<Region>> = (20..)
        .zip(halves(&fixture))
        .map(|(id, range)| child(&fixture, id, &range, &[parent]))
        .collect();
    // Nothing but the sealed parent references the files.
    assert_eq!(collect(&fixture).await, 0);
    check(&children).await;
    for born in &children {
        born.take_ownership(owner(1), GROUP).await.unwrap();
        assert_eq!(collect(&fixture).await, 0);
        check(&children).await;
    }
    let dirs: Vec<_> = children.iter().map(|child| child.dir).collect();
    fixture.region.remove_parent(&dirs).await.unwrap();
    // The removed parent references them for the grace period only.
    assert_eq!(collect(&fixture).await, 0);
    assert_eq!(collect(&fixture).await, 0);
    check(&children).await;
    for (at, compacted) in children.iter().enumerate() {
        let attempt = Attempt::default();
        compacted.compact(Scope::Whole, Epoch(0), &attempt).await.unwrap().unwrap();
        assert_eq!(collect(&fixture).await, 0, "scans may still read it");
        let deleted = collect(&fixture).await;
        // The file and its index, once the second child has replaced them.
        assert_eq!(deleted, if at == 0 { 0 } else { 2 });
        check(&children).await;
    }
    assert!(fixture.storage.get_opt(&file).await.unwrap().is_none());
}

/// A child that is divided before it has replaced its parent's files hands them on.
#[tokio::test]
async fn files_of_parent_stay_for_grandchildren() {
    let fixture = fixture(Storage::memory()).await;
    fixture.clock.advance(1_000);
    let parent = seal(&fixture.region).await;
    let whole = tidewater_common::keys::KeyRange::whole();
    let middle = child(&fixture, 20, &whole, &[parent]);
    middle.take_ownership(owner(1), GROUP).await.unwrap();
    fixture.region.remove_parent(&[middle.dir]).await.unwrap();
    let sealed = seal(&middle).await;
    let children: Vec<Arc<Region>> = (21..)
        .zip(halves(&fixture))
        .map(|(id, range)| child(&fixture, id, &range, &[sealed]))
        .collect();
    assert_eq!(collect(&fixture).await, 0);
    for born in &children {
        born.begin().await.unwrap();
    }
    let dirs: Vec<_> = children.iter().map(|child| child.dir).collect();
    middle.remove_parent(&dirs).await.unwrap();
    for _ in 0..3 {
        assert_eq!(collect(&fixture).await, 0);
        check(&children).await;
    }
}
