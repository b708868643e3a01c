//! A group whose regions are divided or merged: its log, its regions, its store. Data files have no rows: the
//! family records the rows of each object, and a row is identified by its sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::path::Path;
use parking_lot::Mutex;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{Epoch, FileId, JobId, ManifestVersion, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::TableOptions;
use uuid::Uuid;

use crate::env::RegionEnv;
use crate::file_meta::{FileMeta, FileRef};
use crate::layout::RegionDir;
use crate::manifest::samples::{DIR, GROUP, env, file, file_id, owner, schema};
use crate::manifest::{ActionKind, AreaId, Author, Change, Edit, ManifestContext, Void};
use crate::region::{Cause, Parent, Publication, PublicationContent};
use crate::storage::testing::FaultyStore;
use crate::{EngineError, Region, RegionSpec};

/// First row key of the upper half.
const CUT: [u8; 2] = [0x80, 5];

/// Half of the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    Low,
    High,
}

impl Half {
    /// Returns the row key of all rows of this half.
    fn key(self) -> Vec<u8> {
        match self {
            Self::Low => vec![0x80, 2],
            Self::High => vec![0x80, 7],
        }
    }
}

/// A clock that advances with every reading.
#[derive(Debug, Default)]
struct Time(AtomicU64);

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        1_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Change other than a write that the log has decided for the parents.
#[derive(Debug, Clone)]
enum LogChange {
    Truncate,
    /// Publication in the parent with this index.
    Publish(usize, Publication),
}

/// Log of the group.
#[derive(Debug, Default)]
struct Log {
    last: u64,
    /// Rows by sequence: those of writes and of publications.
    rows: BTreeMap<u64, Half>,
    /// Sequences of writes: their rows are in memory until they are flushed.
    writes: BTreeSet<u64>,
    changes: Vec<(u64, LogChange)>,
    truncated: u64,
    leader: u64,
    /// Nothing that becomes an obligation is accepted.
    held: bool,
    parents: Option<Vec<Parent>>,
    /// Files of the parents when they were sealed.
    sealed: Vec<FileMeta>,
}

impl Log {
    fn next(&mut self) -> u64 {
        self.last += 10;
        self.last
    }

    fn push_row(&mut self, half: Half) -> u64 {
        let sequence = self.next();
        self.rows.insert(sequence, half);
        sequence
    }
}

/// Regions before and after, with their ranges.
#[derive(Debug, Clone)]
struct Members {
    parents: Vec<(RegionId, KeyRange)>,
    children: Vec<(RegionId, KeyRange)>,
}

/// A split or a merge in a store.
#[derive(Clone)]
pub(super) struct Family {
    pub(super) store: FaultyStore,
    time: Arc<Time>,
    checkpoint_every: u64,
    members: Members,
    log: Arc<Mutex<Log>>,
    /// Rows of the objects.
    contents: Arc<Mutex<BTreeMap<FileId, BTreeSet<u64>>>>,
}

fn halves() -> [KeyRange; 2] {
    [KeyRange::new(Vec::new(), Some(CUT.to_vec())), KeyRange::new(CUT, None)]
}

fn sealed() -> KeyRange {
    KeyRange::new(Vec::new(), Some(Vec::new()))
}

pub(super) fn dir(region_id: RegionId) -> RegionDir {
    RegionDir { region_id, ..DIR }
}

fn clips(range: &KeyRange, half: Half) -> bool {
    range.contains(&half.key())
}

impl Family {
    /// A region that is split into its halves.
    pub(super) fn split(checkpoint_every: u64) -> Self {
        let [low, high] = halves();
        let children = vec![(RegionId(20), low), (RegionId(21), high)];
        let parents = vec![(DIR.region_id, KeyRange::whole())];
        Self::new(Members { parents, children }, checkpoint_every)
    }

    /// Two regions that are merged.
    pub(super) fn merge(checkpoint_every: u64) -> Self {
        let [low, high] = halves();
        let parents = vec![(DIR.region_id, low), (RegionId(13), high)];
        let children = vec![(RegionId(20), KeyRange::whole())];
        Self::new(Members { parents, children }, checkpoint_every)
    }

    fn new(members: Members, checkpoint_every: u64) -> Self {
        Self {
            store: FaultyStore::new().stepped(),
            time: Arc::default(),
            checkpoint_every,
            members,
            log: Arc::default(),
            contents: Arc::default(),
        }
    }

    pub(super) fn env(&self) -> RegionEnv {
        let mut env = env(self.store.storage());
        env.clock = self.time.clone();
        env.options.manifest.checkpoint_every = self.checkpoint_every;
        env
    }

    pub(super) fn now(&self) -> u64 {
        self.time.now_ms()
    }

    pub(super) fn manifest(&self, region: RegionId) -> ManifestContext {
        ManifestContext::new(self.env(), dir(region))
    }

    fn region(&self, member: &(RegionId, KeyRange), parents: Vec<Parent>) -> Arc<Region> {
        let spec = RegionSpec {
            region_id: member.0,
            table_id: DIR.table_id,
            incarnation: DIR.incarnation,
            schema: schema(1),
            options: TableOptions::upsert(),
            range: member.1.clone(),
            parents,
        };
        Region::new(self.env(), spec, Sequence(0), Sequence(0)).unwrap()
    }

    pub(super) fn parents(&self) -> Vec<Arc<Region>> {
        self.members.parents.iter().map(|member| self.region(member, Vec::new())).collect()
    }

    /// Returns the children once the log has them.
    pub(super) fn children(&self) -> Option<Vec<Arc<Region>>> {
        let parents = self.log.lock().parents.clone()?;
        let children = self.members.children.iter();
        Some(children.map(|member| self.region(member, parents.clone())).collect())
    }

    pub(super) fn child_dirs(&self) -> Vec<RegionDir> {
        self.members.children.iter().map(|(id, _)| dir(*id)).collect()
    }

    fn is_merge(&self) -> bool {
        self.members.parents.len() > 1
    }
}

/// The log.
impl Family {
    pub(super) fn elect(&self, term: u64) {
        let mut log = self.log.lock();
        log.leader = log.leader.max(term);
    }

    pub(super) fn is_held(&self) -> bool {
        self.log.lock().held
    }

    /// Begins or ends the hold; returns false if the caller is not the leader.
    pub(super) fn hold(&self, term: u64, held: bool) -> bool {
        let mut log = self.log.lock();
        if log.leader != term || log.parents.is_some() {
            return false;
        }
        log.held = held;
        true
    }

    /// Writes a row. The parents of a merge take no writes during the hold.
    pub(super) fn write(&self, half: Half) {
        let mut log = self.log.lock();
        if log.held && log.parents.is_none() && self.is_merge() {
            return;
        }
        let sequence = log.push_row(half);
        log.writes.insert(sequence);
    }

    pub(super) fn truncate(&self) {
        let mut log = self.log.lock();
        if log.held {
            return;
        }
        log.truncated = log.next();
        let change = (log.truncated, LogChange::Truncate);
        log.changes.push(change);
    }

    fn publish(&self, term: u64, parent: usize, area: AreaId, file: &FileMeta, half: Half) -> bool {
        let mut log = self.log.lock();
        if log.leader != term || log.held {
            return false;
        }
        let sequence = log.push_row(half);
        self.contents.lock().insert(file.file_id, BTreeSet::from([sequence]));
        let content = PublicationContent::Files;
        let publication = Publication { area, epoch: Epoch(0), content };
        log.changes.push((sequence, LogChange::Publish(parent, publication)));
        true
    }

    /// Replaces the parents by the children; returns false if the caller is not the leader.
    pub(super) fn divide(&self, term: u64, seals: &[(ManifestVersion, Vec<FileMeta>)]) -> bool {
        let mut log = self.log.lock();
        if log.leader != term {
            return false;
        }
        assert!(log.held, "divided without a hold");
        let parents =
            self.members.parents.iter().zip(seals).map(|((id, range), (sealed_at, _))| {
                let own = |row: &&u64| log.rows.get(*row).is_some_and(|half| clips(range, *half));
                let last = log.writes.iter().rfind(own).copied().unwrap_or_default();
                Parent { dir: dir(*id), sealed_at: *sealed_at, last_sequence: Sequence(last) }
            });
        let parents: Vec<Parent> = parents.collect();
        log.parents.get_or_insert(parents);
        log.sealed = seals.iter().flat_map(|(_, files)| files.clone()).collect();
        true
    }

    /// Returns the unflushed rows of a region.
    fn rows_in_memory(&self, range: &KeyRange, above: Sequence, below: u64) -> BTreeSet<u64> {
        let log = self.log.lock();
        let first = above.get().max(log.truncated) + 1;
        let rows = log.writes.range(first..below.max(first)).copied();
        rows.filter(|row| clips(range, log.rows[row])).collect()
    }
}

/// Work on regions.
impl Family {
    /// Writes an object with these rows, which no manifest references yet.
    async fn write_object(&self, origin: RegionDir, floor_ms: u64, rows: &BTreeSet<u64>) -> FileId {
        let now = self.now();
        let id = file_id(now.max(floor_ms), now);
        self.contents.lock().insert(id, rows.clone());
        let bytes = bytes::Bytes::from_static(b"rows");
        self.store.storage().put(&origin.data(id), bytes).await.unwrap();
        id
    }

    fn meta(&self, origin: RegionDir, id: FileId, rows: &BTreeSet<u64>) -> FileMeta {
        let log = self.log.lock();
        let halves: BTreeSet<Half> = rows.iter().map(|row| log.rows[row]).collect();
        let [least, greatest] = [rows.first(), rows.last()].map(|row| Sequence(*row.unwrap()));
        FileMeta {
            file_id: id,
            origin,
            min_key: halves.first().unwrap().key(),
            max_key: halves.last().unwrap().key(),
            stored_min_sequence: least,
            stored_max_sequence: greatest,
            ..file(1)
        }
    }

    /// Flushes the rows of a region below a sequence.
    pub(super) async fn flush(&self, region: &Region, below: u64) -> Result<(), EngineError> {
        loop {
            let state = region.manifest.state();
            let rows = self.rows_in_memory(&region.spec.range, state.flushed, below);
            let Some(last) = rows.last() else { return Ok(()) };
            let id = self.write_object(region.dir, state.gc_floor_ms, &rows).await;
            let add = vec![self.meta(region.dir, id, &rows)];
            let edit = Edit { add, flushed: Some(Sequence(*last)), ..Edit::default() };
            let own = region.contents.lock().phase.check_owner(region.id())?;
            let change = Change::new(Author::Owner(own), vec![ActionKind::Edit(edit)]);
            match region.note_fence(region.manifest.update_manifest(change).await) {
                Err(EngineError::Refused { reason: Void::BelowFloor { .. }, .. }) => {}
                committed => {
                    committed?;
                    region.install_version();
                    return Ok(());
                }
            }
        }
    }

    /// Records in a parent's manifest what the log has decided.
    pub(super) async fn settle(&self, index: usize, region: &Region) -> Result<(), EngineError> {
        let changes = self.log.lock().changes.clone();
        for (sequence, change) in changes {
            if sequence <= region.done_through().get() {
                continue;
            }
            let cause = Cause { sequence: Sequence(sequence), procedure: None };
            match change {
                LogChange::Truncate => region.truncate(cause)?,
                LogChange::Publish(parent, publication) if parent == index => {
                    self.flush(region, sequence).await?;
                    region.publish(cause, publication)?;
                }
                LogChange::Publish(..) => continue,
            }
            region.record_obligations().await?;
        }
        Ok(())
    }

    /// Stages a file of a bulk load in a parent, and publishes it.
    pub(super) async fn bulk_load(
        &self,
        term: u64,
        index: usize,
        region: &Region,
        half: Half,
    ) -> Result<(), EngineError> {
        if !clips(&region.spec.range, half) {
            return Ok(());
        }
        let floor_ms = region.manifest.state().gc_floor_ms;
        let id = self.write_object(region.dir, floor_ms, &BTreeSet::new()).await;
        let area = AreaId(id.0);
        let (min_key, max_key) = (half.key(), half.key());
        let added = FileMeta { file_id: id, origin: region.dir, min_key, max_key, ..file(1) };
        let edit = Edit { add: vec![added.clone()], ..Edit::default() };
        match region.stage_edit(owner(term), area, u64::MAX, edit).await {
            Err(EngineError::Refused { reason: Void::BelowFloor { .. }, .. }) => return Ok(()),
            staged => staged?,
        }
        if self.publish(term, index, area, &added, half) {
            self.settle(index, region).await?;
        }
        Ok(())
    }

    /// Seals a parent after everything that the log has decided.
    pub(super) async fn seal(
        &self,
        index: usize,
        region: &Region,
    ) -> Result<(ManifestVersion, Vec<FileMeta>), EngineError> {
        self.settle(index, region).await?;
        if !region.is_sealed() {
            self.flush(region, u64::MAX).await?;
        }
        for open in region.staging_areas() {
            // Its loader has lost its leader before the log could publish it.
            let abandoned = region.withdraw_area(open.area).await;
            abandoned.map_err(|error| match error {
                crate::bulk::AdoptError::Engine(error) => error,
                other => panic!("{other}"),
            })?;
        }
        let sealed_at = region.set_range(sealed(), None).await?;
        Ok((sealed_at, region.files()))
    }

    /// Replaces a file of a region by another one, as a job that planned with `manifest` does.
    pub(super) async fn compact(&self, region: RegionId, manifest: &ManifestContext) {
        let state = manifest.state();
        let Some(input) = state.files().next().cloned() else { return };
        let kept: BTreeSet<u64> = {
            let (log, contents) = (self.log.lock(), self.contents.lock());
            let shown = |row: &&u64| clips(&input.clip, log.rows[*row]);
            contents[&input.file_id].iter().filter(shown).copied().collect()
        };
        let id = self.write_object(dir(region), 0, &kept).await;
        let output = FileMeta { file_id: id, origin: dir(region), ..input.clone() };
        let edit = Edit { add: vec![output], remove: vec![input.reference()], ..Edit::default() };
        let job = Author::Job(JobId(Uuid::from_u128(u128::from(self.now()))));
        let change = Change::new(job, vec![ActionKind::Edit(edit)]);
        match manifest.update_manifest(change).await {
            Ok(_)
            | Err(EngineError::Removed { .. })
            | Err(EngineError::Refused {
                reason: Void::InputsGone { .. } | Void::BelowFloor { .. } | Void::Sealed,
                ..
            }) => {}
            Err(error) => panic!("compaction of {region}: {error}"),
        }
    }

    /// Verifies that a child shows every row of its range once: in one file, or in memory.
    pub(super) fn verify(&self, child: &Region) {
        let (log, contents) = (self.log.lock(), self.contents.lock());
        let flushed = child.flushed_sequence().get();
        if child.stats().manifest_version <= ManifestVersion(1) {
            let references = |files: Vec<FileMeta>| -> BTreeSet<FileRef> {
                files.iter().map(FileMeta::reference).collect()
            };
            let clipped = log.sealed.iter().map(|file| file.clipped(&child.spec().range));
            let sealed = clipped.filter(|file| file.shown_keys().is_some()).collect();
            assert_eq!(references(child.files()), references(sealed), "{}", child.id());
        }
        let mut shown: BTreeMap<u64, usize> = BTreeMap::new();
        for file in child.files() {
            let rows = contents[&file.file_id].iter();
            for row in rows.filter(|row| clips(&file.clip, log.rows[*row])) {
                *shown.entry(*row).or_default() += 1;
            }
        }
        for row in log.writes.range(flushed.max(log.truncated) + 1..) {
            if clips(&child.spec().range, log.rows[row]) {
                *shown.entry(*row).or_default() += 1;
            }
        }
        let own = log
            .rows
            .iter()
            .filter(|(row, half)| **row > log.truncated && clips(&child.spec().range, **half));
        let expected: BTreeMap<u64, usize> = own.map(|(row, _)| (*row, 1)).collect();
        assert_eq!(shown, expected, "rows of region {}, flushed to {flushed}", child.id());
    }

    /// Verifies that every live file of a region exists.
    pub(super) async fn verify_files(&self, region: RegionId) {
        let manifest = self.manifest(region);
        manifest.refresh().await.unwrap();
        let listed = self.store.storage().list(&Path::default(), None).await.unwrap();
        let stored: BTreeSet<Path> = listed.into_iter().map(|object| object.location).collect();
        for file in manifest.state().files() {
            assert!(stored.contains(&file.path()), "region {region}: {} is missing", file.path());
        }
    }

    /// Verifies the children and the store after all actors have ended.
    pub(super) async fn verify_end(&self) {
        for child in self.children().expect("the parents were divided") {
            child.load().await.unwrap();
            self.verify(&child);
            self.verify_files(child.id()).await;
            let state = child.manifest.state();
            assert_eq!(state.owner.map(|owner| owner.group), Some(GROUP));
        }
        for (parent, _) in &self.members.parents {
            let manifest = self.manifest(*parent);
            manifest.refresh().await.unwrap();
            assert!(manifest.state().is_removed(), "region {parent} is not removed");
        }
    }
}
