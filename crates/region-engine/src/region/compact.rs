//! Compaction of a region by its owner: select, plan, carry out or [have carried out](super::planned), swap.
//!
//! Several may run at once, of different files. Writes, reads and flushes go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{Epoch, JobId, ManifestVersion, Sequence};
use tokio::sync::SemaphorePermit;
use uuid::Uuid;

use super::planned::PlannedCompaction;
use super::{Contents, Region};
use crate::EngineError;
use crate::compaction::plan::resolve;
use crate::compaction::select::{CompactionSelection, SelectionContext, select};
use crate::compaction::{
    Attempt, CompactionPlan, CompactionReason, OutputOptions, ProgressSnapshot, Scope,
};
use crate::file_meta::{FileMeta, FileRef};
use crate::manifest::ManifestState;

/// Rows expire this much later for a compaction than for reads, in milliseconds: a node whose clock
/// is behind must not see an older version of a row that is gone.
const CLOCKS_DIFFER_MS: u64 = 600_000;

/// What a compaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionReport {
    /// Names the job.
    pub job_id: JobId,
    /// Why its files were chosen.
    pub why: CompactionReason,
    /// A manifest version that has its outputs.
    pub manifest_version: ManifestVersion,
    /// Files merged.
    pub files_in: usize,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Files written.
    pub files_out: usize,
    /// Rows and bytes, read and written.
    pub done: ProgressSnapshot,
}

/// A compaction that would be worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionDue {
    /// Why.
    pub why: CompactionReason,
    /// Files to merge.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a choice must leave alone.
struct Beside {
    busy: BTreeSet<FileRef>,
    obligation: Option<Sequence>,
}

impl Beside {
    fn of(contents: &Contents) -> Self {
        Self {
            busy: contents.compacting.clone(),
            obligation: contents.obligations.first().map(|pending| pending.cause.sequence),
        }
    }
}

impl Region {
    /// What the picker would merge now, the most useful first; whether this replica owns the region
    /// or not. Cheap; no I/O.
    pub fn compactions_due(&self) -> Vec<CompactionDue> {
        if self.contents.lock().phase.check_read(self.id()).is_err() {
            return Vec::new();
        }
        let state = self.manifest.state();
        let beside = Beside::of(&self.contents.lock());
        self.selections(&state, Scope::Due, state.since, &beside)
            .iter()
            .map(|selection| CompactionDue {
                why: selection.why,
                files: selection.inputs.len(),
                bytes: selection.inputs.iter().map(|file| file.size).sum(),
            })
            .collect()
    }

    /// Merges files, if `scope` finds any to merge: waits for a permit, reads the manifest to its
    /// tail, chooses, merges, commits, swaps. `None`: there was nothing to do. Only the owner
    /// chooses, but the commit stands also when the region has got another owner meanwhile. `since`:
    /// versions at or below this epoch are left out but for the newest of each key.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Removed`], [`EngineError::Cancelled`],
    /// [`EngineError::Refused`] when the files were merged, truncated or dropped meanwhile, and
    /// those of the store and of a commit. Nothing has changed after any of them but
    /// [`EngineError::Unknown`], after which the next call finds out.
    pub async fn compact(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
        attempt: &Attempt,
    ) -> Result<Option<CompactionReport>, EngineError> {
        self.contents.lock().phase.check_owner(self.id())?;
        // Before anything is chosen: while one waits, others merge.
        let _permit = self.compaction_permit(attempt).await?;
        match self.plan_compaction(scope, since).await? {
            Some(planned) => planned.run(attempt).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads the manifest to its tail and plans what is to be merged, if `scope` finds anything.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Removed`], those of reading the manifest.
    pub async fn plan_compaction(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
    ) -> Result<Option<PlannedCompaction>, EngineError> {
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.swap();
        self.claim(scope, since)
    }

    /// Chooses, and holds the files against other jobs of this replica.
    pub(super) fn claim(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
    ) -> Result<Option<PlannedCompaction>, EngineError> {
        let mut contents = self.contents.lock();
        contents.phase.check_owner(self.id())?;
        // Under the lock: a state from before would go with obligations that have been settled since.
        let state = self.manifest.state();
        let since = since.max(state.since);
        let beside = Beside::of(&contents);
        let Some(selection) = self.selections(&state, scope, since, &beside).into_iter().next()
        else {
            return Ok(None);
        };
        let plan = self.plan(&selection, since);
        let job = resolve(&plan, &state, self.spec.as_of(&state)).map_err(|error| {
            EngineError::Internal { detail: format!("region {}: {error}", self.id()) }
        })?;
        contents.compacting.extend(plan.inputs.iter().cloned());
        drop(contents);
        let (region, version) = (self.clone(), state.version);
        Ok(Some(PlannedCompaction { region, plan, job, before: Vec::new(), version }))
    }

    async fn compaction_permit(
        &self,
        attempt: &Attempt,
    ) -> Result<SemaphorePermit<'_>, EngineError> {
        let job = JobId(Uuid::nil());
        let cancelled = || EngineError::Cancelled { region: self.id(), job };
        tokio::select! {
            permit = self.env.compactions.acquire() => permit.map_err(|_| cancelled()),
            () = attempt.cancel.cancelled() => Err(cancelled()),
        }
    }

    fn selections(
        &self,
        state: &ManifestState,
        scope: Scope,
        since: Epoch,
        beside: &Beside,
    ) -> Vec<CompactionSelection> {
        let spec = self.spec.as_of(state);
        let with = SelectionContext {
            schema: &spec.schema,
            table: &spec.options,
            options: &self.env.options.compaction,
            target_file_bytes: self.env.options.target_file_bytes,
            since,
            now_ms: self.expiry_now(),
            busy: &beside.busy,
            obligation: beside.obligation,
        };
        select(state, scope, with)
    }

    fn plan(&self, selection: &CompactionSelection, since: Epoch) -> CompactionPlan {
        CompactionPlan {
            job_id: self.env.ids.job_id(self.env.clock.now_ms()),
            dir: self.dir,
            inputs: selection.inputs.iter().map(FileMeta::reference).collect(),
            since,
            now_ms: self.expiry_now(),
            output: OutputOptions {
                level: selection.level,
                target_file_bytes: self.env.options.target_file_bytes,
            },
            window_ms: selection.window_ms,
            why: selection.why,
        }
    }

    fn expiry_now(&self) -> u64 {
        self.env.clock.now_ms().saturating_sub(CLOCKS_DIFFER_MS)
    }
}
