//! Garbage collection after long random histories of several regions in one store: its account matches
//! a listing, it deletes no object that a manifest needs, and all rows stay readable.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;
use proptest::prelude::*;
use tidewater_common::clock::Clock;
use tidewater_common::ids::RegionId;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use super::late_jobs::{PendingJob, commit_late};
use super::steps::{Step, step};
use super::{RegionCopy, bulk_rows, copy, run_step};
use crate::RegionSpec;
use crate::gc::{GarbageCollector, GcReport, GcRequest, KeepReason, RegionFloor, named};
use crate::histories::histories;
use crate::layout::{RegionDir, RegionObject};
use crate::manifest::ManifestContext;
use crate::region::tests::fixture::*;
use crate::storage::Storage;

/// Number of distinct keys of a region.
const KEYS: u8 = 60;

#[derive(Debug, Clone)]
enum Event {
    /// A step of one of the regions.
    Step(usize, Step),
    /// Bulk-load files that are never staged.
    Orphan(usize, Vec<u8>),
    /// Removal of a copy.
    DropCopy(prop::sample::Index),
    Collect {
        grace: u64,
        most: usize,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        30 => (0..2_usize, step(KEYS)).prop_map(|(at, step)| Event::Step(at, step)),
        1 => (0..2_usize, prop::collection::vec(0..KEYS, 1..20))
            .prop_map(|(at, numbers)| Event::Orphan(at, numbers)),
        1 => any::<prop::sample::Index>().prop_map(Event::DropCopy),
        2 => (0..30_u64, prop_oneof![Just(1_000_usize), 1..8_usize])
            .prop_map(|(grace, most)| Event::Collect { grace, most }),
    ];
    prop::collection::vec(event, 50..150)
}

/// Two regions, copies of them, and their common clock.
struct Regions {
    storage: Storage,
    clock: Arc<ManualClock>,
    fixtures: Vec<(RegionFixture, PendingJob)>,
    copies: Vec<RegionCopy>,
}

impl Regions {
    async fn new(hashed: [bool; 2]) -> Self {
        let storage = Storage::memory();
        let clock = Arc::<ManualClock>::default();
        let specs = [
            spec(WriteMode::Upsert, hashed[0]),
            RegionSpec { region_id: RegionId(13), ..spec(WriteMode::AppendOnly, hashed[1]) },
        ];
        let mut fixtures = Vec::new();
        for spec in specs {
            fixtures.push((
                RegionFixture::with_clock(storage.clone(), clock.clone(), spec).await,
                None,
            ));
        }
        Self { storage, clock, fixtures, copies: Vec::new() }
    }

    async fn run_event(&mut self, event: Event) {
        self.clock.advance(1);
        match event {
            Event::Step(at, Step::Copy) => {
                let copied = copy(&mut self.fixtures[at].0).await;
                self.copies.push(copied);
            }
            Event::Step(at, step) => {
                let (fixture, pending) = &mut self.fixtures[at];
                run_step(fixture, step, pending).await;
            }
            Event::Orphan(at, numbers) => {
                let fixture = &mut self.fixtures[at].0;
                let rows = bulk_rows(fixture, numbers);
                fixture.bulk_files(&rows).await;
            }
            Event::DropCopy(_) if self.copies.is_empty() => {}
            Event::DropCopy(which) => {
                let copied = self.copies.swap_remove(which.index(self.copies.len()));
                let region = copied.region(&self.fixtures[0].0);
                region.take_ownership(owner(2), GROUP).await.unwrap();
                region.remove().await.unwrap();
            }
            Event::Collect { grace, most } => {
                self.collect(self.clock.now_ms() - grace, most).await;
            }
        }
    }

    /// Runs a dry run, then a pass that must match its account.
    async fn collect(&self, floor_ms: u64, most: usize) -> GcReport {
        let request = GcRequest { floor_ms, dry_run: true, table: None, max_deletions: most };
        let before = self.objects().await;
        let (account, garbage) = self.pass(&request).await;
        assert_eq!(self.objects().await, before, "a dry run changes nothing");
        assert_eq!(account.deleted + account.kept_objects(), before.len() as u64, "{account:?}");
        assert_eq!(account.kept.get(&KeepReason::Unknown), None, "{account:?}");
        let needed = self.needed().await;
        assert!(
            needed.is_subset(&before),
            "deleted although needed: {:?}",
            needed.difference(&before)
        );
        assert!(garbage.is_disjoint(&needed), "{:?}", garbage.intersection(&needed));

        let (report, deleted) = self.pass(&GcRequest { dry_run: false, ..request }).await;
        assert_eq!((&report, &deleted), (&account, &garbage));
        let after = self.objects().await;
        assert_eq!(before.difference(&after).cloned().collect::<BTreeSet<_>>(), garbage);
        report
    }

    async fn pass(&self, request: &GcRequest) -> (GcReport, BTreeSet<Path>) {
        let (sender, mut receiver) = mpsc::channel(10_000);
        let collector = GarbageCollector::new(env_with(self.storage.clone(), self.clock.clone()));
        let report = collector.collect(request, &sender).await.unwrap();
        drop(sender);
        let mut garbage = BTreeSet::new();
        while let Some(found) = receiver.recv().await {
            assert!(garbage.insert(found.path));
        }
        assert_eq!(garbage.len() as u64, report.deleted);
        (report, garbage)
    }

    async fn objects(&self) -> BTreeSet<Path> {
        let listed = self.storage.list(&Path::default(), None).await.unwrap();
        listed.into_iter().map(|object| object.location).collect()
    }

    /// Returns the data files and indexes that are live or staged in a manifest.
    async fn needed(&self) -> BTreeSet<Path> {
        let objects = self.objects().await;
        let dir_of = |path: &Path| {
            let (dir, _) = path.as_ref().match_indices('/').nth(1)?;
            RegionDir::parse(&path.as_ref()[..dir])
        };
        let dirs: BTreeSet<RegionDir> = objects.iter().filter_map(dir_of).collect();
        let mut names = BTreeSet::new();
        for dir in &dirs {
            let env = env_with(self.storage.clone(), self.clock.clone());
            let manifest = ManifestContext::new(env, *dir);
            manifest.refresh().await.unwrap();
            named::each(&manifest.state(), RegionFloor::of_pass(u64::MAX), |name, _| {
                names.insert(name);
            });
        }
        let path_of = |dir: &RegionDir, path: &Path| match dir.object(path) {
            RegionObject::Data(file) => Some((*dir, file.0)),
            RegionObject::Index(index) => Some((*dir, index)),
            _ => None,
        };
        let mut needed = BTreeSet::new();
        for path in objects {
            let name = dirs.iter().find_map(|dir| path_of(dir, &path));
            if name.is_some_and(|name| names.remove(&name)) {
                needed.insert(path);
            }
        }
        assert!(names.is_empty(), "in a manifest, but missing: {names:?}");
        needed
    }

    async fn check(&self) {
        for (fixture, _) in &self.fixtures {
            fixture.check().await;
        }
        for copied in &self.copies {
            copied.check(&self.fixtures[0].0).await;
        }
    }

    /// Completes the history: later passes keep only the objects in a manifest.
    async fn finish(&mut self) {
        for (fixture, pending) in &mut self.fixtures {
            commit_late(fixture, pending.take()).await;
        }
        self.collect(self.clock.now_ms() - 5, 1_000_000).await;
        for (fixture, _) in &mut self.fixtures {
            fixture.reopen().await.unwrap();
        }
        self.check().await;
        self.clock.advance(100);
        // The first pass may write a checkpoint that covers deltas which the second pass deletes.
        for _ in 0..2 {
            self.collect(self.clock.now_ms(), 1_000_000).await;
            self.clock.advance(100);
        }
        let report = self.collect(self.clock.now_ms(), 1_000_000).await;
        let kept: BTreeSet<KeepReason> = report.kept.into_keys().collect();
        let reasons = BTreeSet::from([KeepReason::Live, KeepReason::Staged, KeepReason::Manifest]);
        assert!(kept.is_subset(&reasons), "{kept:?}");
        for (fixture, _) in &mut self.fixtures {
            fixture.reopen().await.unwrap();
        }
        self.check().await;
    }
}

fn check(events: Vec<Event>, hashed: [bool; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut regions = Regions::new(hashed).await;
        for event in events {
            regions.run_event(event).await;
        }
        regions.finish().await;
    });
}

proptest! {
    #![proptest_config(histories(25))]

    #[test]
    fn gc_account_matches_listing_with_hashed_append_only_region(events in events()) {
        check(events, [false, true]);
    }

    #[test]
    fn gc_account_matches_listing_with_hashed_upsert_region(events in events()) {
        check(events, [true, false]);
    }
}
