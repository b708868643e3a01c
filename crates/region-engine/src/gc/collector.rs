//! A garbage collection pass over all regions of a store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt, stream};
use tidewater_common::ids::{ManifestVersion, RegionId};
use tokio::sync::mpsc;

use super::named::{self, ObjectName};
use super::survey::{GarbageCandidate, RegionSurvey, survey};
use super::{
    Garbage, GarbageReason, GcReport, GcRequest, HookPositions, KeepReason, LoggedVersions,
};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::hooks::{FilesRemoved, GcPass, RegionHooks, RemovalReason};
use crate::layout::{RegionDir, RegionObject};
use crate::manifest::{ActionKind, Author, Change, ManifestContext, ManifestState};

/// Concurrent deletions.
const CONCURRENT_DELETIONS: usize = 16;
/// Attempts to notify hooks of a pass while one of them returns an error.
const HOOK_ATTEMPTS: usize = 3;

/// Collects the garbage of all regions in a store.
#[derive(Debug, Clone)]
pub struct GarbageCollector {
    env: RegionEnv,
    hook_positions: HookPositions,
    logged: LoggedVersions,
}

/// State of a running pass.
struct CollectionPass<'a> {
    collector: &'a GarbageCollector,
    request: &'a GcRequest,
    report: GcReport,
    candidates: Vec<GarbageCandidate>,
    /// Regions whose manifests receive a floor, with the floor.
    floors: BTreeMap<RegionDir, u64>,
}

impl GarbageCollector {
    /// Creates a collector with the store, the ids and the hooks of this environment.
    pub fn new(env: RegionEnv) -> Self {
        Self { env, hook_positions: HookPositions::default(), logged: LoggedVersions::default() }
    }

    /// Returns the collector with the positions of durable hooks: it keeps the versions after them.
    pub fn with_hook_positions(self, hook_positions: HookPositions) -> Self {
        Self { hook_positions, ..self }
    }

    /// Returns the collector with the versions that the groups' logs have recorded: it leaves a region
    /// alone whose manifest ends earlier.
    pub fn with_logged_versions(self, logged: LoggedVersions) -> Self {
        Self { logged, ..self }
    }

    /// Runs one pass. Sends each object that is deleted, or would be, to `found`; the pass
    /// continues if the receiver is dropped. May be dropped at any point, and run concurrently with
    /// others.
    ///
    /// # Errors
    /// When the store cannot be listed. A manifest that cannot be read, or an object that cannot be
    /// deleted, is recorded in the report only.
    pub async fn collect(
        &self,
        request: &GcRequest,
        found: &mpsc::Sender<Garbage>,
    ) -> Result<GcReport, EngineError> {
        let mut pass = CollectionPass {
            collector: self,
            request,
            report: GcReport::default(),
            candidates: Vec::new(),
            floors: BTreeMap::new(),
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

    /// Returns all regions' directories in order of region id, and the number of objects next to
    /// them.
    async fn regions(&self) -> Result<(Vec<RegionDir>, u64), EngineError> {
        let (tables, mut outside) = self.env.storage.directories(None).await?;
        let mut regions = Vec::new();
        for table in tables {
            let (folders, objects) = self.env.storage.directories(Some(&table)).await?;
            outside += objects;
            regions.extend(folders.iter().filter_map(|folder| RegionDir::parse(folder.as_ref())));
        }
        regions.sort_by_key(|dir| (dir.region_id, *dir));
        Ok((regions, outside))
    }

    async fn survey(&self, dir: RegionDir, floor_ms: u64) -> Result<RegionSurvey, String> {
        // Objects first: an object that is referenced after the listing is found referenced.
        let listed = self.env.storage.list(&dir.path(), None).await;
        let objects = listed.map_err(|error| error.to_string())?;
        let (state, checkpoint) = self.read(dir).await?;
        Ok(survey(&state, checkpoint, &objects, floor_ms, &self.hook_positions))
    }

    /// Reads a region's manifest and its newest checkpoint's version; the error is the reason why the
    /// manifest cannot be relied on.
    async fn read(&self, dir: RegionDir) -> Result<(Arc<ManifestState>, ManifestVersion), String> {
        let manifest = ManifestContext::new(self.env.clone(), dir);
        let read = manifest.read_from_checkpoint().await;
        let checkpoint = read.map_err(|error| error.to_string())?;
        let state = manifest.state();
        self.logged.check(dir, state.version).map_err(|doubt| doubt.to_string())?;
        Ok((state, checkpoint))
    }

    async fn raise_floor(&self, dir: RegionDir, floor_ms: u64) -> Result<(), EngineError> {
        let manifest = ManifestContext::new(self.env.clone(), dir);
        manifest.refresh().await?;
        if manifest.state().gc_floor_ms >= floor_ms {
            return Ok(());
        }
        let floor = Change::new(Author::System, vec![ActionKind::GcFloor { floor_ms }]);
        match manifest.record(floor).await {
            // A removed region never receives another file.
            Ok(_) | Err(EngineError::Removed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl CollectionPass<'_> {
    async fn survey(&mut self) -> Result<(), EngineError> {
        let (regions, outside) = self.collector.regions().await?;
        self.report.keep(KeepReason::Unknown, outside);
        for dir in regions {
            match self.collector.survey(dir, self.request.floor_ms).await {
                Ok(survey) => {
                    if survey.names_others && survey.floor_ms < self.request.floor_ms {
                        // It may still reference objects of regions with lower ids.
                        self.spare_all();
                    }
                    self.add_survey(dir, survey);
                }
                Err(detail) => {
                    self.record_unreadable(dir, detail);
                    self.spare_all();
                }
            }
        }
        Ok(())
    }

    /// Keeps the candidates so far: their regions have lower ids than a region that cannot be read,
    /// or whose floor stays lower, and they must not use up the maximum of the pass.
    fn spare_all(&mut self) {
        let before = self.candidates.len();
        self.candidates.retain(|candidate| candidate.id.is_none());
        self.report.keep(KeepReason::Spared, (before - self.candidates.len()) as u64);
    }

    fn add_survey(&mut self, dir: RegionDir, survey: RegionSurvey) {
        for (why, objects) in survey.kept {
            self.report.keep(why, objects);
        }
        let is_requested = self.request.table.is_none_or(|table| table == dir.table_id);
        let room = self.request.max_deletions.max(1) - self.candidates.len();
        let taken = if is_requested { survey.candidates.len().min(room) } else { 0 };
        self.report.keep(KeepReason::Later, (survey.candidates.len() - taken) as u64);
        if survey.names_others || taken > 0 {
            self.floors.insert(dir, survey.floor_ms);
        }
        self.candidates.extend(survey.candidates.into_iter().take(taken));
    }

    fn record_unreadable(&mut self, dir: RegionDir, detail: String) {
        tracing::warn!(
            region = %dir,
            %detail,
            "cannot rely on a manifest; keeping objects that it may reference"
        );
        if !self.report.unreadable.iter().any(|(known, _)| *known == dir) {
            self.report.unreadable.push((dir, detail));
        }
    }

    async fn raise_floors(&mut self) {
        for (dir, floor_ms) in std::mem::take(&mut self.floors) {
            if let Err(error) = self.collector.raise_floor(dir, floor_ms).await {
                self.record_unreadable(dir, error.to_string());
            }
        }
    }

    /// Returns the candidates that a manifest references.
    async fn mark(&mut self) -> Result<HashMap<ObjectName, KeepReason>, EngineError> {
        let candidates: BTreeSet<ObjectName> = self
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
                let state = match self.collector.read(dir).await {
                    Ok((state, _)) => state,
                    Err(detail) => {
                        self.record_unreadable(dir, detail);
                        continue;
                    }
                };
                let positions = &self.collector.hook_positions;
                let floor = positions.floor(&state, self.request.floor_ms);
                named::each(&state, floor, |name, why| {
                    if candidates.contains(&name) {
                        named.entry(name).or_insert(why);
                    }
                });
            }
        }
    }

    async fn sweep(
        &mut self,
        named: &HashMap<ObjectName, KeepReason>,
        found: &mpsc::Sender<Garbage>,
    ) {
        let highest_unreadable = self.report.unreadable.iter().map(|(dir, _)| dir.region_id).max();
        let mut by_region: BTreeMap<(RegionId, RegionDir), Vec<Garbage>> = BTreeMap::new();
        for GarbageCandidate { id, garbage } in std::mem::take(&mut self.candidates) {
            let dir = garbage.dir;
            match id {
                Some(id) if named.contains_key(&(dir, id)) => {
                    self.report.keep(named[&(dir, id)], 1);
                }
                Some(_) if highest_unreadable.is_some_and(|highest| dir.region_id <= highest) => {
                    self.report.keep(KeepReason::Spared, 1);
                }
                _ => by_region.entry((dir.region_id, dir)).or_default().push(garbage),
            }
        }
        for ((_, dir), garbage) in by_region {
            let deleted = if self.request.dry_run { garbage } else { self.delete(garbage).await };
            self.report.deleted += deleted.len() as u64;
            self.report.bytes += deleted.iter().map(|garbage| garbage.bytes).sum::<u64>();
            if !self.request.dry_run {
                self.notify_hooks(dir, &deleted).await;
            }
            for garbage in deleted {
                // The receiver may have been dropped.
                let _ = found.send(garbage).await;
            }
        }
    }

    /// Deletes objects; returns those that were deleted.
    async fn delete(&mut self, garbage: Vec<Garbage>) -> Vec<Garbage> {
        let storage = &self.collector.env.storage;
        let deletions = garbage.into_iter().map(|garbage| async move {
            let result = storage.delete(&garbage.path).await;
            (garbage, result)
        });
        let mut deleted = Vec::new();
        let mut deletions = stream::iter(deletions).buffered(CONCURRENT_DELETIONS);
        while let Some((garbage, result)) = deletions.next().await {
            match result {
                Ok(()) => deleted.push(garbage),
                Err(error) => {
                    tracing::warn!(%error, "failed to delete object; the next pass retries");
                    self.report.failed += 1;
                }
            }
        }
        deleted
    }

    async fn notify_hooks(&self, dir: RegionDir, deleted: &[Garbage]) {
        let removed = removed_files(dir, deleted);
        if deleted.is_empty() {
            return;
        }
        let hooks = RegionHooks::new(&self.collector.env, dir);
        for files in &removed {
            hooks.files_removed(files.clone()).await;
        }
        let bytes = deleted.iter().map(|garbage| garbage.bytes).sum();
        let pass = GcPass { removed, bytes };
        for _ in 0..HOOK_ATTEMPTS {
            // Deleted objects stay deleted: repeating the pass means repeating the notification.
            if hooks.region_gc(pass.clone()).await.is_ok() {
                return;
            }
        }
    }
}

/// Returns the data files among the deleted objects, by reason.
fn removed_files(dir: RegionDir, deleted: &[Garbage]) -> Vec<FilesRemoved> {
    let all = [
        RemovalReason::Compaction,
        RemovalReason::Truncate,
        RemovalReason::Drop,
        RemovalReason::Orphan,
    ];
    all.into_iter()
        .map(|reason| {
            let of_reason =
                deleted.iter().filter(|garbage| garbage.why == GarbageReason::File(reason));
            let files = of_reason.filter_map(|garbage| match dir.object(&garbage.path) {
                RegionObject::Data(file) => Some(file),
                _ => None,
            });
            FilesRemoved { files: files.collect(), reason }
        })
        .filter(|removed| !removed.files.is_empty())
        .collect()
}
