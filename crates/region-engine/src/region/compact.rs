//! Compaction of a region by its owner: selects files, plans, runs the job or [offloads](super::planned)
//! it, installs the new version.
//!
//! Several compactions of disjoint files may run concurrently. Writes, reads and flushes continue.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{Epoch, JobId, Sequence};
use uuid::Uuid;

use super::planned::{CompactionReport, PlannedCompaction};
use super::{Contents, Region};
use crate::EngineError;
use crate::compaction::plan::resolve;
use crate::compaction::select::{CompactionSelection, SelectionContext, select};
use crate::compaction::{
    Attempt, CompactionPasses, CompactionPlan, CompactionReason, LocalSlot, OutputOptions, Scope,
};
use crate::file_meta::{FileMeta, FileRef};
use crate::manifest::ManifestState;

/// Delay in milliseconds after which a row that has expired for reads also expires for compactions: a
/// node whose clock is behind must not see an older version of an expired row.
const MAX_CLOCK_SKEW_MS: u64 = 600_000;

/// A compaction that the picker would choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionDue {
    /// Reason for the compaction.
    pub why: CompactionReason,
    /// Number of input files.
    pub files: usize,
    /// Size of the input files in bytes.
    pub bytes: u64,
}

/// Files that the picker must leave alone.
struct Exclusions {
    /// Inputs of other compactions.
    busy: BTreeSet<FileRef>,
    /// Sequence of the first pending obligation.
    obligation: Option<Sequence>,
}

impl Exclusions {
    fn of(contents: &Contents) -> Self {
        Self {
            busy: contents.compacting.clone(),
            obligation: contents.obligations.first().map(|pending| pending.cause.sequence),
        }
    }
}

impl Region {
    /// Lists the compactions that the picker would choose now, the most useful first. Does not require
    /// ownership. Cheap; no I/O.
    pub fn compactions_due(&self) -> Vec<CompactionDue> {
        let readable = self.contents.lock().phase.check_read(self.id()).is_ok();
        if !readable || self.env.clock.check().is_err() {
            return Vec::new();
        }
        let state = self.manifest.state();
        let (exclusions, since) = {
            let contents = self.contents.lock();
            (Exclusions::of(&contents), contents.readable_since())
        };
        let memory_bytes = self.env.compactions.memory_bytes();
        self.selections(&state, Scope::Due, since, &exclusions, memory_bytes)
            .iter()
            .map(|selection| CompactionDue {
                why: selection.why,
                files: selection.inputs.len(),
                bytes: selection.inputs.iter().map(|file| file.size).sum(),
            })
            .collect()
    }

    /// Compacts the files that `scope` selects: waits for a slot, reads the manifest to its tail,
    /// chooses files, rewrites them, commits, installs the new version; in several passes if all files are
    /// too many for one job. Returns `None` if there is nothing to compact. Only the owner chooses files,
    /// but the commit is valid even if the owner changes before it. `since`: of the versions at or below
    /// this epoch, only the newest of each key is kept.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Removed`], [`EngineError::Cancelled`],
    /// [`EngineError::NotAdmitted`] if the job needs more memory or disk than this process has,
    /// [`EngineError::Refused`] if the files were compacted, truncated or dropped concurrently, and
    /// errors of the store and of a commit. Completed passes remain. Otherwise the region is unchanged
    /// after any of them, except after [`EngineError::Unknown`]: the next call resolves the outcome.
    pub async fn compact(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
        attempt: &Attempt,
    ) -> Result<Option<CompactionReport>, EngineError> {
        self.contents.lock().phase.check_owner(self.id())?;
        // Acquired before files are chosen: other compactions change the choice while this one waits.
        let slot = self.compaction_slot(attempt).await?;
        let mut passes = CompactionPasses::new(scope);
        while let Some(planned) = self.plan_compaction(passes.scope(), since).await? {
            if !passes.record(planned.run(&slot, attempt).await?) {
                break;
            }
            attempt.progress.finish_pass();
        }
        Ok(passes.total())
    }

    /// Reads the manifest to its tail and plans a compaction of the files that `scope` selects, if any,
    /// for this process.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Removed`], and errors of reading the manifest.
    pub async fn plan_compaction(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
    ) -> Result<Option<PlannedCompaction>, EngineError> {
        let memory_bytes = self.env.compactions.memory_bytes();
        self.plan_compaction_within(scope, since, memory_bytes).await
    }

    /// As [`plan_compaction`](Self::plan_compaction), for a node that has `memory_bytes` for a job.
    ///
    /// # Errors
    /// Those of [`plan_compaction`](Self::plan_compaction).
    pub async fn plan_compaction_within(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
        memory_bytes: u64,
    ) -> Result<Option<PlannedCompaction>, EngineError> {
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.install_version();
        self.claim_within(scope, since, memory_bytes)
    }

    /// As [`claim_within`](Self::claim_within), for this process.
    #[cfg(test)]
    pub(super) fn claim(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
    ) -> Result<Option<PlannedCompaction>, EngineError> {
        self.claim_within(scope, since, self.env.compactions.memory_bytes())
    }

    /// Chooses files and reserves them against other jobs of this replica.
    fn claim_within(
        self: &Arc<Self>,
        scope: Scope,
        since: Epoch,
        memory_bytes: u64,
    ) -> Result<Option<PlannedCompaction>, EngineError> {
        self.env.check_clock(self.id())?;
        let mut contents = self.contents.lock();
        contents.phase.check_owner(self.id())?;
        // Read under the lock: an older state would not match the pending obligations, some of which may
        // have been recorded since.
        let state = self.manifest.state();
        let since = since.max(state.since);
        let exclusions = Exclusions::of(&contents);
        let selections = self.selections(&state, scope, since, &exclusions, memory_bytes);
        let Some(selection) = selections.into_iter().next() else {
            return Ok(None);
        };
        let plan = self.plan(&selection, since);
        let job = resolve(&plan, &state, self.spec.as_of(&state), self.env.clock.now_ms());
        let job = job.map_err(|error| EngineError::Internal {
            detail: format!("region {}: {error}", self.id()),
        })?;
        contents.compacting.extend(plan.inputs.iter().cloned());
        drop(contents);
        Ok(Some(PlannedCompaction {
            region: self.clone(),
            plan,
            job,
            earlier_ids: Vec::new(),
            version: state.version,
            remainder: selection.remainder,
        }))
    }

    async fn compaction_slot(&self, attempt: &Attempt) -> Result<LocalSlot, EngineError> {
        let job = JobId(Uuid::nil());
        tokio::select! {
            slot = self.env.compactions.acquire() => Ok(slot),
            () = attempt.cancel.cancelled() => {
                Err(EngineError::Cancelled { region: self.id(), job })
            }
        }
    }

    fn selections(
        &self,
        state: &ManifestState,
        scope: Scope,
        since: Epoch,
        exclusions: &Exclusions,
        memory_bytes: u64,
    ) -> Vec<CompactionSelection> {
        let spec = self.spec.as_of(state);
        let with = SelectionContext {
            schema: &spec.schema,
            table: &spec.options,
            options: &self.env.options.compaction,
            target_file_bytes: self.env.options.target_file_bytes,
            memory_bytes,
            since,
            now_ms: self.expiry_now(),
            busy: &exclusions.busy,
            obligation: exclusions.obligation,
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
        // Without a known time nothing expires.
        self.env.clock.expiry_ms().unwrap_or(0).saturating_sub(MAX_CLOCK_SKEW_MS)
    }
}
