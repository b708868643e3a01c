//! K2: reads as of an epoch that a hold keeps return the same rows during an hour of updates, flushes,
//! compactions, garbage collection passes and restarts. After the release, the space of the kept
//! versions is free again.
//!
//! A hold keeps `since` where it is: the owner of the region does not call
//! [`Region::advance_since`](crate::Region::advance_since). Times are those of the manual clock.

use std::array;
use std::collections::BTreeSet;
use std::iter;

use object_store::path::Path;
use tidewater_common::clock::Clock;
use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use crate::compaction::Scope;
use crate::gc::{GarbageCollector, GarbageReason, GcRequest};
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{AsOf, EngineError, ScanOptions};

const SEED: u64 = 19;
/// Number of distinct keys. About four fifths of them have a row.
const KEYS: u8 = 200;

/// Seconds of updates before the hold: the rows as of its epoch are in files and in memory.
const WARM_UP_S: u64 = 330;
/// Seconds of updates under the hold.
const HOUR_S: u64 = 3_600;
/// Seconds of updates after the release: enough changes of the manifest for a new checkpoint.
const AFTERWARDS_S: u64 = 1_800;

/// Seconds between two flushes.
const FLUSH_S: u64 = 60;
/// Seconds between two rounds of the compactions that the picker chooses.
const COMPACTION_S: u64 = 300;
/// Seconds between two compactions of all files.
const WHOLE_COMPACTION_S: u64 = 1_800;
/// Seconds between two garbage collection passes.
const PASS_S: u64 = 600;
/// Grace period of the passes, in milliseconds.
const GRACE_MS: u64 = 600_000;
/// Maximum deletions of a pass, far above the number of objects.
const MAX_DELETIONS: usize = 10_000;

/// Generator of pseudorandom numbers: SplitMix64 (Steele, Lea and Flood, 2014).
struct Generator(u64);

impl Generator {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A region that is updated and maintained as the clock advances. All of them get the same updates.
struct UpdatedRegion {
    fixture: RegionFixture,
    generator: Generator,
    /// Keys that have a row.
    live: BTreeSet<u8>,
    /// True if `since` stays where it is. Otherwise it follows the newest complete epoch.
    is_held: bool,
    /// Seconds of updates.
    second: u64,
    /// Data files that the regular garbage collection passes have deleted.
    deleted_files: usize,
}

fn key(number: u8) -> Key {
    ("k".to_owned(), i32::from(number))
}

impl UpdatedRegion {
    /// Creates a region with a row of each key.
    async fn new() -> Self {
        let fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
        let mut region = Self {
            fixture,
            generator: Generator(SEED),
            live: (0..KEYS).collect(),
            is_held: false,
            second: 0,
            deleted_files: 0,
        };
        let rows: Vec<Row> = (0..KEYS).map(|number| region.row(number)).collect();
        region.fixture.put(&rows);
        region
    }

    /// Returns a row whose note compresses badly: versions take space.
    fn row(&mut self, number: u8) -> Row {
        let note = array::from_fn::<_, 4, _>(|_| format!("{:016x}", self.generator.bits()));
        (key(number), Some(i64::from(number)), note.concat())
    }

    /// Updates the region for this time: each second is an epoch with one write.
    async fn update(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.write();
            self.fixture.epoch += 1;
            if !self.is_held {
                self.advance_since();
            }
            self.fixture.clock.advance(1_000);
            self.second += 1;
            self.maintain().await;
        }
    }

    /// Overwrites, deletes or inserts the row of a random key.
    fn write(&mut self) {
        let [number, chance, ..] = self.generator.bits().to_le_bytes();
        let number = number % KEYS;
        if chance < 64 && self.live.remove(&number) {
            self.fixture.delete(&[key(number)]);
            return;
        }
        let row = self.row(number);
        self.fixture.put(&[row]);
        self.live.insert(number);
    }

    /// Permits to drop the versions that only reads before the newest complete epoch return.
    fn advance_since(&mut self) {
        self.fixture.since = self.fixture.epoch - 1;
        self.fixture.region.advance_since(Epoch(self.fixture.since));
    }

    async fn maintain(&mut self) {
        let region = &self.fixture.region;
        if region.is_merge_due() {
            region.merge_runs().await.unwrap();
        }
        if self.second.is_multiple_of(FLUSH_S) {
            region.flush().await.unwrap();
        }
        if self.second.is_multiple_of(WHOLE_COMPACTION_S) {
            self.fixture.compact(Scope::Whole).await;
        } else if self.second.is_multiple_of(COMPACTION_S) {
            while self.fixture.compact(Scope::Due).await.is_some() {}
        }
        if self.second.is_multiple_of(PASS_S) {
            let deleted = self.collect().await;
            self.deleted_files += deleted;
        }
    }

    /// Runs a garbage collection pass. Returns the number of data files that it deleted.
    async fn collect(&self) -> usize {
        let floor_ms = self.fixture.clock.now_ms() - GRACE_MS;
        let request =
            GcRequest { floor_ms, dry_run: false, table: None, max_deletions: MAX_DELETIONS };
        // As large as a pass: the sender never waits.
        let (sender, mut receiver) = mpsc::channel(MAX_DELETIONS);
        let collector = GarbageCollector::new(self.fixture.env());
        let report = collector.collect(&request, &sender).await.unwrap();
        assert!(report.unreadable.is_empty() && report.failed == 0, "{report:?}");
        iter::from_fn(|| receiver.try_recv().ok())
            .filter(|garbage| matches!(garbage.why, GarbageReason::File(_)))
            .count()
    }

    /// Flushes and compacts all rows, and deletes the garbage once the grace period is over. Returns
    /// the bytes of all objects that are left.
    async fn settle(&self) -> u64 {
        self.fixture.region.flush().await.unwrap();
        self.fixture.compact(Scope::Whole).await;
        // The first pass may write a checkpoint, which covers deltas that the second one deletes.
        for _ in 0..2 {
            self.fixture.clock.advance(GRACE_MS + 1);
            self.collect().await;
        }
        let objects = self.fixture.storage.list(&Path::default(), None).await.unwrap();
        objects.iter().map(|object| object.size).sum()
    }

    /// Row versions in files, deletes included.
    fn versions(&self) -> u64 {
        self.fixture.region.stats().file_rows
    }

    async fn rows_as_of(&self, epoch: Epoch) -> Result<Vec<Row>, EngineError> {
        let as_of = Some(AsOf { epoch, upper: Epoch(self.fixture.epoch) });
        scan(&self.fixture.region, &ScanOptions { as_of, ..all() }).await
    }

    /// Checks that a read as of the epoch returns these rows, and a read of the newest rows those of
    /// the model.
    async fn check(&self, epoch: Epoch, rows: &[Row]) {
        let second = self.second;
        assert_eq!(self.rows_as_of(epoch).await.unwrap(), rows, "after {second} s");
        let newest = scan(&self.fixture.region, &all()).await.unwrap();
        assert_eq!(newest, self.fixture.expected_rows(), "after {second} s");
    }

    /// Checks that the rows as of the epoch cannot be read any more.
    async fn check_dropped(&self, epoch: Epoch) {
        let read = self.rows_as_of(epoch).await;
        assert!(matches!(read, Err(EngineError::BelowSince { .. })), "{read:?}");
    }
}

/// Updates a region under a hold for an hour. Returns it with the bytes of its objects and the held
/// epoch.
async fn held_for_an_hour() -> (UpdatedRegion, u64, Epoch) {
    let mut region = UpdatedRegion::new().await;
    region.update(WARM_UP_S).await;
    region.is_held = true;
    let epoch = Epoch(region.fixture.since);
    let rows = region.rows_as_of(epoch).await.unwrap();
    assert_eq!(rows, region.fixture.expected_rows());
    for step in 0..HOUR_S / COMPACTION_S {
        if step % 2 == 1 {
            region.fixture.reopen().await.unwrap();
        }
        region.update(COMPACTION_S).await;
        region.check(epoch, &rows).await;
    }
    assert!(region.deleted_files > 0, "the hold does not stop garbage collection");

    let bytes = region.settle().await;
    region.check(epoch, &rows).await;
    // One version of each second since the epoch, and the rows as of the epoch.
    assert_eq!(region.versions(), HOUR_S + rows.len() as u64);
    region.fixture.reopen().await.unwrap();
    region.check(epoch, &rows).await;
    (region, bytes, epoch)
}

#[tokio::test]
async fn held_epoch_stays_readable_and_release_frees_space() {
    let (mut region, held_bytes, epoch) = held_for_an_hour().await;
    region.is_held = false;
    region.advance_since();
    region.check_dropped(epoch).await;
    let released_bytes = region.settle().await;
    assert_eq!(region.versions(), region.live.len() as u64);
    // There were more than 20 versions for each row. The manifest still lists their files.
    assert!(3 * released_bytes < held_bytes, "{released_bytes} of {held_bytes}");

    let mut twin = UpdatedRegion::new().await;
    twin.update(WARM_UP_S + HOUR_S).await;
    twin.check_dropped(epoch).await;
    for region in [&mut region, &mut twin] {
        region.update(AFTERWARDS_S).await;
    }
    let bytes = region.settle().await;
    let twin_bytes = twin.settle().await;
    assert_eq!(region.fixture.expected_rows(), twin.fixture.expected_rows());
    for region in [&region, &twin] {
        assert_eq!(region.versions(), region.live.len() as u64);
    }
    // The rows are the same. The files may end at other keys, and up to 15 deltas follow the last
    // checkpoint: together less than half of the bytes.
    assert!(2 * bytes <= 3 * twin_bytes, "{bytes}, never held: {twin_bytes}");
}
