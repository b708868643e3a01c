//! The pass; see the module's head.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, stream};
use tidewater_common::ids::RegionId;
use tokio::sync::mpsc;

use super::named::{self, Name};
use super::survey::{Candidate, Survey, survey};
use super::{Awaited, Garbage, GcReport, GcRequest, Kept, Why};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::hooks::{FilesRemoved, GcPass, RegionHooks, RemovalReason};
use crate::layout::{RegionDir, RegionObject};
use crate::manifest::{ActionKind, Author, Change, ManifestContext};

/// Deletions that are under way at once.
const DELETIONS: usize = 16;
/// How often a hook that refuses a pass is told again.
const TELLINGS: usize = 3;

/// Collects the garbage of all regions in a store.
#[derive(Debug, Clone)]
pub struct Collector {
    env: RegionEnv,
    awaited: Awaited,
}

/// What a pass knows.
struct Pass<'a> {
    collector: &'a Collector,
    request: &'a GcRequest,
    report: GcReport,
    candidates: Vec<Candidate>,
    /// Regions whose manifests get the floor.
    floors: BTreeSet<RegionDir>,
}

impl Collector {
    /// A collector with the store, the ids and the hooks of this environment.
    pub fn new(env: RegionEnv) -> Self {
        Self { env, awaited: Awaited::default() }
    }

    /// The same, but what durable hooks wait for stays.
    pub fn sparing(self, awaited: Awaited) -> Self {
        Self { awaited, ..self }
    }

    /// One pass. Each object that is deleted, or would be, is sent to `found` as it goes; when nobody
    /// listens any more, the pass goes on. May be dropped at any point, and run beside others.
    ///
    /// # Errors
    /// When the store cannot be listed. A manifest that cannot be read, or an object that cannot be
    /// deleted, is no error but in the report.
    pub async fn collect(
        &self,
        request: &GcRequest,
        found: &mpsc::Sender<Garbage>,
    ) -> Result<GcReport, EngineError> {
        let mut pass = Pass {
            collector: self,
            request,
            report: GcReport::default(),
            candidates: Vec::new(),
            floors: BTreeSet::new(),
        };
        pass.survey().await?;
        if pass.candidates.is_empty() {
            return Ok(pass.report);
        }
        if !request.dry_run {
            pass.raise_floors().await;
        }
        let named = pass.mark().await?;
        pass.sweep(&named, found).await;
        Ok(pass.report)
    }

    /// All regions' directories in order of region id, and how many objects lie beside them.
    async fn regions(&self) -> Result<(Vec<RegionDir>, u64), EngineError> {
        let (tables, mut beside) = self.env.storage.directories(None).await?;
        let mut regions = Vec::new();
        for table in tables {
            let (folders, objects) = self.env.storage.directories(Some(&table)).await?;
            beside += objects;
            regions.extend(folders.iter().filter_map(|folder| RegionDir::parse(folder.as_ref())));
        }
        regions.sort_by_key(|dir| (dir.region_id, *dir));
        Ok((regions, beside))
    }

    async fn survey(&self, dir: RegionDir, floor_ms: u64) -> Result<Survey, EngineError> {
        // Objects first: what is named later is found named.
        let objects = self.env.storage.list(&dir.path(), None).await?;
        let manifest = ManifestContext::new(self.env.clone(), dir);
        let checkpoint = manifest.read_from_checkpoint().await?;
        Ok(survey(&manifest.state(), checkpoint, &objects, floor_ms, &self.awaited))
    }

    async fn raise_floor(&self, dir: RegionDir, floor_ms: u64) -> Result<(), EngineError> {
        let manifest = ManifestContext::new(self.env.clone(), dir);
        manifest.refresh().await?;
        if manifest.state().gc_floor_ms >= floor_ms {
            return Ok(());
        }
        let floor = Change::new(Author::System, vec![ActionKind::GcFloor { floor_ms }]);
        match manifest.record(floor).await {
            // Nothing is ever added to it again.
            Ok(_) | Err(EngineError::Removed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Pass<'_> {
    async fn survey(&mut self) -> Result<(), EngineError> {
        let (regions, beside) = self.collector.regions().await?;
        self.report.keep(Kept::Unknown, beside);
        for dir in regions {
            match self.collector.survey(dir, self.request.floor_ms).await {
                Ok(survey) => self.take(dir, survey),
                Err(error) => {
                    self.unreadable(dir, &error);
                    self.spare_all();
                }
            }
        }
        Ok(())
    }

    /// The regions so far have lower ids than one that cannot be read: what they hold is spared, and
    /// must not take the room of others.
    fn spare_all(&mut self) {
        let before = self.candidates.len();
        self.candidates.retain(|candidate| candidate.id.is_none());
        self.report.keep(Kept::Spared, (before - self.candidates.len()) as u64);
    }

    fn take(&mut self, dir: RegionDir, survey: Survey) {
        for (why, objects) in survey.kept {
            self.report.keep(why, objects);
        }
        let asked = self.request.table.is_none_or(|table| table == dir.table_id);
        let room = self.request.most.max(1) - self.candidates.len();
        let taken = if asked { survey.candidates.len().min(room) } else { 0 };
        self.report.keep(Kept::Later, (survey.candidates.len() - taken) as u64);
        if survey.names_others || taken > 0 {
            self.floors.insert(dir);
        }
        self.candidates.extend(survey.candidates.into_iter().take(taken));
    }

    fn unreadable(&mut self, dir: RegionDir, error: &EngineError) {
        tracing::warn!(region = %dir, %error, "garbage collection spares what it may name");
        if !self.report.unreadable.iter().any(|(known, _)| *known == dir) {
            self.report.unreadable.push((dir, error.to_string()));
        }
    }

    async fn raise_floors(&mut self) {
        for dir in std::mem::take(&mut self.floors) {
            if let Err(error) = self.collector.raise_floor(dir, self.request.floor_ms).await {
                self.unreadable(dir, &error);
            }
        }
    }

    /// The candidates that some manifest names.
    async fn mark(&mut self) -> Result<HashMap<Name, Kept>, EngineError> {
        let candidates: BTreeSet<Name> = self
            .candidates
            .iter()
            .filter_map(|candidate| Some((candidate.garbage.dir, candidate.id?)))
            .collect();
        let mut named = HashMap::new();
        let mut seen = BTreeSet::new();
        loop {
            let (regions, _) = self.collector.regions().await?;
            let fresh: Vec<RegionDir> =
                regions.into_iter().filter(|dir| seen.insert(*dir)).collect();
            if fresh.is_empty() {
                return Ok(named);
            }
            for dir in fresh {
                let manifest = ManifestContext::new(self.collector.env.clone(), dir);
                if let Err(error) = manifest.refresh().await {
                    self.unreadable(dir, &error);
                    continue;
                }
                named::each(&manifest.state(), self.request.floor_ms, |name, why| {
                    if candidates.contains(&name) {
                        named.entry(name).or_insert(why);
                    }
                });
            }
        }
    }

    async fn sweep(&mut self, named: &HashMap<Name, Kept>, found: &mpsc::Sender<Garbage>) {
        let spared = self.report.unreadable.iter().map(|(dir, _)| dir.region_id).max();
        let mut by_region: BTreeMap<(RegionId, RegionDir), Vec<Garbage>> = BTreeMap::new();
        for Candidate { id, garbage } in std::mem::take(&mut self.candidates) {
            let dir = garbage.dir;
            match id {
                Some(id) if named.contains_key(&(dir, id)) => {
                    self.report.keep(named[&(dir, id)], 1);
                }
                Some(_) if spared.is_some_and(|highest| dir.region_id <= highest) => {
                    self.report.keep(Kept::Spared, 1);
                }
                _ => by_region.entry((dir.region_id, dir)).or_default().push(garbage),
            }
        }
        for ((_, dir), garbage) in by_region {
            let gone = match self.request.dry_run {
                true => garbage,
                false => self.delete(garbage).await,
            };
            self.report.deleted += gone.len() as u64;
            self.report.bytes += gone.iter().map(|garbage| garbage.bytes).sum::<u64>();
            if !self.request.dry_run {
                self.tell(dir, &gone).await;
            }
            for garbage in gone {
                // Whoever asked may have gone.
                let _ = found.send(garbage).await;
            }
        }
    }

    /// Deletes; gives back what is gone.
    async fn delete(&mut self, garbage: Vec<Garbage>) -> Vec<Garbage> {
        let storage = &self.collector.env.storage;
        let deletions = garbage.into_iter().map(|garbage| async move {
            let deleted = storage.delete(&garbage.path).await;
            (garbage, deleted)
        });
        let mut gone = Vec::new();
        let mut deletions = stream::iter(deletions).buffered(DELETIONS);
        while let Some((garbage, deleted)) = deletions.next().await {
            match deleted {
                Ok(()) => gone.push(garbage),
                Err(error) => {
                    tracing::warn!(%error, "garbage could not be deleted; the next pass tries again");
                    self.report.failed += 1;
                }
            }
        }
        gone
    }

    async fn tell(&self, dir: RegionDir, gone: &[Garbage]) {
        let removed = removed(dir, gone);
        if gone.is_empty() {
            return;
        }
        let hooks = RegionHooks::new(&self.collector.env.plugins, dir);
        for files in &removed {
            hooks.files_removed(files.clone()).await;
        }
        let bytes = gone.iter().map(|garbage| garbage.bytes).sum();
        let pass = GcPass { removed, bytes };
        for _ in 0..TELLINGS {
            // What was deleted stays deleted: to make the pass again is to tell of it again.
            if hooks.region_gc(pass.clone()).await.is_ok() {
                return;
            }
        }
    }
}

/// The data files among it, by reason.
fn removed(dir: RegionDir, gone: &[Garbage]) -> Vec<FilesRemoved> {
    let all = [
        RemovalReason::Compaction,
        RemovalReason::Truncate,
        RemovalReason::Drop,
        RemovalReason::Orphan,
    ];
    all.into_iter()
        .map(|reason| {
            let of_reason = gone.iter().filter(|garbage| garbage.why == Why::File(reason));
            let files = of_reason.filter_map(|garbage| match dir.object(&garbage.path) {
                RegionObject::Data(file) => Some(file),
                _ => None,
            });
            FilesRemoved { files: files.collect(), reason }
        })
        .filter(|removed| !removed.files.is_empty())
        .collect()
}
