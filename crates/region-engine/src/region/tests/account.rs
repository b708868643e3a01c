//! Garbage collection after long random histories of several regions in one store: its account is
//! that of a listing, it names nothing that a manifest needs, and nobody misses what it took.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;
use proptest::prelude::*;
use tidewater_common::clock::Clock;
use tidewater_common::ids::RegionId;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use super::jobs::{Begun, commit_late};
use super::model::{Copied, bulk_rows, copy, take};
use super::steps::{Step, step};
use super::world::*;
use crate::RegionSpec;
use crate::gc::{GarbageCollector, GcReport, GcRequest, KeepReason, named};
use crate::histories::histories;
use crate::layout::{RegionDir, RegionObject};
use crate::manifest::ManifestContext;
use crate::storage::Storage;

/// Different keys of a region.
const KEYS: u8 = 60;

#[derive(Debug, Clone)]
enum Event {
    /// Of one of the regions.
    Step(usize, Step),
    /// Files that nobody ever names.
    Lose(usize, Vec<u8>),
    /// A copy is dropped.
    Drop(prop::sample::Index),
    Collect {
        grace: u64,
        most: usize,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        30 => (0..2_usize, step(KEYS)).prop_map(|(at, step)| Event::Step(at, step)),
        1 => (0..2_usize, prop::collection::vec(0..KEYS, 1..20))
            .prop_map(|(at, numbers)| Event::Lose(at, numbers)),
        1 => any::<prop::sample::Index>().prop_map(Event::Drop),
        2 => (0..30_u64, prop_oneof![Just(1_000_usize), 1..8_usize])
            .prop_map(|(grace, most)| Event::Collect { grace, most }),
    ];
    prop::collection::vec(event, 50..150)
}

/// Two regions, copies of them, and the time that all share.
struct Regions {
    storage: Storage,
    clock: Arc<HandClock>,
    worlds: Vec<(World, Begun)>,
    copies: Vec<Copied>,
}

impl Regions {
    async fn new(hashed: [bool; 2]) -> Self {
        let (storage, clock) = (Storage::memory(), Arc::<HandClock>::default());
        let specs = [
            spec(WriteMode::Upsert, hashed[0]),
            RegionSpec { region_id: RegionId(13), ..spec(WriteMode::AppendOnly, hashed[1]) },
        ];
        let mut worlds = Vec::new();
        for spec in specs {
            worlds.push((World::of(storage.clone(), clock.clone(), spec).await, None));
        }
        Self { storage, clock, worlds, copies: Vec::new() }
    }

    async fn take(&mut self, event: Event) {
        self.clock.forward(1);
        match event {
            Event::Step(at, Step::Copy) => {
                let copied = copy(&mut self.worlds[at].0).await;
                self.copies.push(copied);
            }
            Event::Step(at, step) => {
                let (world, begun) = &mut self.worlds[at];
                take(world, step, begun).await;
            }
            Event::Lose(at, numbers) => {
                let world = &mut self.worlds[at].0;
                let rows = bulk_rows(world, numbers);
                world.bulk_files(&rows).await;
            }
            Event::Drop(_) if self.copies.is_empty() => {}
            Event::Drop(which) => {
                let copied = self.copies.swap_remove(which.index(self.copies.len()));
                let region = copied.region(&self.worlds[0].0);
                region.take_ownership(owner(2), GROUP).await.unwrap();
                region.remove().await.unwrap();
            }
            Event::Collect { grace, most } => {
                self.collect(self.clock.now_ms() - grace, most).await;
            }
        }
    }

    /// A dry run, then a pass that must do what it said.
    async fn collect(&self, floor_ms: u64, most: usize) -> GcReport {
        let request = GcRequest { floor_ms, dry_run: true, table: None, max_deletions: most };
        let before = self.objects().await;
        let (account, garbage) = self.pass(&request).await;
        assert_eq!(self.objects().await, before, "a dry run changes nothing");
        assert_eq!(account.deleted + account.kept_objects(), before.len() as u64, "{account:?}");
        assert_eq!(account.kept.get(&KeepReason::Unknown), None, "{account:?}");
        let needed = self.needed().await;
        assert!(needed.is_subset(&before), "gone: {:?}", needed.difference(&before));
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

    /// Data files and indexes that a manifest names live or staged.
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
            named::each(&manifest.state(), u64::MAX, |name, _| {
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
        assert!(names.is_empty(), "named, and not there: {names:?}");
        needed
    }

    async fn check(&self) {
        for (world, _) in &self.worlds {
            world.check().await;
        }
        for copied in &self.copies {
            copied.check(&self.worlds[0].0).await;
        }
    }

    /// Once everything is over: late passes leave what is named, and nothing else.
    async fn end(&mut self) {
        for (world, begun) in &mut self.worlds {
            commit_late(world, begun.take()).await;
        }
        self.collect(self.clock.now_ms() - 5, 1_000_000).await;
        for (world, _) in &mut self.worlds {
            world.reopen().await.unwrap();
        }
        self.check().await;
        self.clock.forward(100);
        // The first pass may leave a checkpoint that covers what the second one takes.
        for _ in 0..2 {
            self.collect(self.clock.now_ms(), 1_000_000).await;
            self.clock.forward(100);
        }
        let report = self.collect(self.clock.now_ms(), 1_000_000).await;
        let kept: BTreeSet<KeepReason> = report.kept.into_keys().collect();
        let reasons = BTreeSet::from([KeepReason::Live, KeepReason::Staged, KeepReason::Manifest]);
        assert!(kept.is_subset(&reasons), "{kept:?}");
        for (world, _) in &mut self.worlds {
            world.reopen().await.unwrap();
        }
        self.check().await;
    }
}

fn check(events: Vec<Event>, hashed: [bool; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut regions = Regions::new(hashed).await;
        for event in events {
            regions.take(event).await;
        }
        regions.end().await;
    });
}

proptest! {
    #![proptest_config(histories(50))]

    #[test]
    fn the_account_is_that_of_a_listing_and_nobody_misses_what_went(events in events()) {
        check(events, [false, true]);
    }

    #[test]
    fn so_it_is_where_the_other_region_is_hashed(events in events()) {
        check(events, [true, false]);
    }
}
