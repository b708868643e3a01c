//! Comparisons that share little memory with each other.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;
use tokio::time::{sleep, timeout};

use super::*;
use crate::read::memory::ScanMemory;
use crate::storage::Storage;

/// Bytes of comparisons: one works at a time, since it holds more than half of them.
const ONE_COMPARISON: u64 = 704 << 10;
/// Duration that no wait reaches.
const HANGS_AFTER: Duration = Duration::from_secs(60);

async fn fixture_with(comparisons: u64) -> RegionFixture {
    let clock: Arc<ManualClock> = Arc::default();
    let mut env = env_with(Storage::memory(), clock.clone());
    env.scan_memory = Arc::new(ScanMemory::new(128 << 20).with_comparisons(comparisons));
    RegionFixture::with_env(env, clock, spec(WriteMode::Upsert, false)).await
}

/// Options for each of four parts of the region.
async fn parts(fixture: &RegionFixture, area: AreaId) -> Vec<ChangeOptions> {
    let keys = fixture.region.staged_split_keys(area, 4).await.unwrap();
    let starts = std::iter::once(Vec::new()).chain(keys.iter().cloned());
    let ends = keys.iter().cloned().map(Some).chain([None]);
    let ranges = starts.zip(ends).map(|(start, end)| KeyRange::new(start, end));
    ranges.map(|range| ChangeOptions { range, chunk_rows: 7, ..whole() }).collect()
}

/// Compares, and waits after each chunk as for the log: a long time after each `slow` chunks.
async fn written_changes(
    fixture: &RegionFixture,
    area: AreaId,
    options: ChangeOptions,
    slow: usize,
) -> Vec<ChangeChunk> {
    let budget = fixture.region.env.scan_memory.comparisons();
    let mut stream = fixture.region.staged_changes(area, options).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        assert!(budget.used() <= budget.limit());
        chunks.push(chunk);
        let is_slow = chunks.len().is_multiple_of(slow);
        sleep(Duration::from_millis(if is_slow { 150 } else { 1 })).await;
    }
    chunks
}

#[tokio::test]
async fn comparisons_complete_with_memory_for_one() {
    let mut fixture = fixture_with(ONE_COMPARISON).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, &source(&filled)).await;
    let parts = parts(&fixture, area).await;
    let mut expected = Vec::new();
    for options in &parts {
        expected.push(changes(&fixture, area, options.clone()).await.unwrap());
    }
    // Two of each part.
    let both = [3, 4].into_iter().flat_map(|slow| parts.iter().map(move |part| (slow, part)));
    let comparisons =
        both.map(|(slow, options)| written_changes(&fixture, area, options.clone(), slow));
    let found = timeout(HANGS_AFTER, join_all(comparisons)).await.unwrap();
    assert_eq!(found.len(), 8);
    for (position, chunks) in found.into_iter().enumerate() {
        assert!(chunks.len() > 2);
        assert_eq!(chunks, expected[position % parts.len()], "comparison {position}");
    }
    assert_eq!(fixture.region.env.scan_memory.comparisons().used(), 0);
}

#[tokio::test]
async fn interrupted_comparison_gives_the_same_chunks() {
    let mut fixture = fixture_with(ONE_COMPARISON).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, &source(&filled)).await;
    let options = ChangeOptions { chunk_rows: 30, ..whole() };
    let expected = changes(&fixture, area, options.clone()).await.unwrap();
    let memory = fixture.region.env.scan_memory.clone();
    let budget = memory.comparisons();
    let mut stream = fixture.region.staged_changes(area, options).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = timeout(HANGS_AFTER, stream.next()).await.unwrap().unwrap() {
        // The changes that it has returned are written, which it does not see.
        write(&mut fixture, std::slice::from_ref(&chunk));
        chunks.push(chunk);
        // Another comparison takes all memory, and closes the sources of this one.
        drop(timeout(HANGS_AFTER, budget.lease(budget.limit())).await.unwrap().unwrap());
        assert_eq!(budget.used(), 0);
    }
    assert_eq!(chunks, expected);
    check_rows(&fixture, &source(&filled).concat()).await;
}

#[tokio::test]
async fn comparison_outlasts_the_lifetime_of_a_read() {
    let mut fixture = fixture_with(ONE_COMPARISON).await;
    let filled = fill(&mut fixture).await;
    fixture.region.flush().await.unwrap();
    let area = area_of(&mut fixture, &source(&filled)).await;
    let mut stream = fixture.region.staged_changes(area, whole()).await.unwrap();
    let lifetime = fixture.region.env.options.scan_lifetime.as_millis();
    fixture.clock.advance(u64::try_from(lifetime).unwrap() + 1);
    let chunk = timeout(HANGS_AFTER, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((chunk.counts.unchanged, chunk.is_last), (120, true));
}

#[tokio::test]
async fn dropped_comparison_releases_its_memory() {
    let mut fixture = fixture_with(ONE_COMPARISON).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, &source(&filled)).await;
    let budget = fixture.region.env.scan_memory.comparisons();
    let options = ChangeOptions { chunk_rows: 13, ..whole() };
    let mut stream = fixture.region.staged_changes(area, options.clone()).await.unwrap();
    assert_eq!(budget.used(), 0);
    let first = stream.next().await.unwrap().unwrap();
    assert!(budget.used() > ONE_COMPARISON / 2);
    drop(stream);
    assert_eq!(budget.used(), 0);
    // One that waits is cancelled, and continues.
    let options = ChangeOptions { after: Some(first.reached), ..options };
    let mut other = fixture.region.staged_changes(area, options).await.unwrap();
    let held = budget.lease(budget.limit()).await.unwrap();
    assert!(timeout(Duration::from_millis(10), other.next()).await.is_err());
    drop(held);
    assert!(other.next().await.unwrap().is_some());
    drop(other);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn scans_and_comparisons_do_not_wait_for_each_other() {
    let mut fixture = fixture_with(ONE_COMPARISON).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, &source(&filled)).await;
    let memory = &fixture.region.env.scan_memory;
    let account = memory.account();
    let held = memory.comparisons().lease(memory.comparisons().limit()).await.unwrap();
    let options = crate::ScanOptions { account: account.clone(), ..all() };
    let found = timeout(Duration::from_secs(5), scan(&fixture.region, &options)).await.unwrap();
    assert_eq!(found.unwrap().len(), filled.len());
    drop(held);
    let sources = memory.sources().limit();
    let _held = account.sources.lease(sources, sources, Duration::ZERO).await.unwrap();
    let found = timeout(Duration::from_secs(5), changes(&fixture, area, whole())).await.unwrap();
    assert_eq!(total(&found.unwrap()).unchanged, 120);
}
