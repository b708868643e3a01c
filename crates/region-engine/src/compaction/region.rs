//! A region as a compactor sees it: its manifest and its location in the store, without rows in
//! memory.

use std::time::Duration;

use tidewater_common::ids::{Epoch, GroupId, ManifestVersion, OwnerEpoch, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};
use tokio::time::Instant;

use super::compactor::{CommittedCompaction, CompactionTarget, Compactor};
use super::job::CompactionJob;
use super::options::CompactionLimits;
use super::plan::{CompactionPlan, PlanError, resolve};
use super::progress::Attempt;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::hooks::{HookSets, HookSetupError, HookSpec, RegionHooks};
use crate::layout::RegionDir;
use crate::manifest::{ManifestContext, ManifestState};
use crate::region::RegionSpec;

/// Interval between reads of the manifest while the outcome of a commit is unknown.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The region to open, its owner, and its hooks.
#[derive(Debug, Clone)]
pub struct OpenCompactionRegionRequest {
    /// Table and region, which determine the directory of the objects.
    pub dir: RegionDir,
    /// Columns and keys of the owner; those of the manifest take precedence.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live; those of the manifest take precedence.
    pub options: TableOptions,
    /// The caller: the region's owner, and the group that it leads.
    pub owner: (OwnerEpoch, GroupId),
    /// Plans may drop versions up to this epoch.
    pub since: Epoch,
    /// Resources that a job may use.
    pub limits: CompactionLimits,
    /// The only hooks that are called.
    pub hooks: Vec<HookSpec>,
    /// Name of the table, for the hooks; `None`: unknown to the caller.
    pub table_name: Option<String>,
}

/// Reasons why a region is not opened, or a plan is refused; nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// A hook cannot be created.
    #[error(transparent)]
    Hook(#[from] HookSetupError),
    /// The manifest cannot be read, the region was dropped, or a later owner has it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The directory has no manifest.
    #[error("region {region} has no manifest in this object store: no owner has created it yet")]
    NoManifest {
        /// Id of the region.
        region: RegionId,
    },
    /// The caller has not fenced the manifest, so other nodes may be about to write to it.
    #[error("region {region}: caller {caller} is not the owner recorded in the manifest")]
    NotOwner {
        /// Id of the region.
        region: RegionId,
        /// Owner epoch of the caller.
        caller: OwnerEpoch,
    },
    /// The plan does not fit the manifest.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A region that is open for compaction.
#[derive(Debug)]
pub struct CompactionRegion {
    env: RegionEnv,
    spec: RegionSpec,
    owner: (OwnerEpoch, GroupId),
    since: Epoch,
    limits: CompactionLimits,
    manifest: ManifestContext,
    hooks: RegionHooks,
}

/// Opens a region from its manifest in the store of `env`, to execute compactions that its owner
/// has planned. `sets` creates its hooks before anything is read.
///
/// # Errors
/// [`OpenError::Hook`] with the hook that cannot be created; [`OpenError::Engine`] with
/// [`EngineError::Fenced`] when a later owner has the region, [`EngineError::Removed`] when it was
/// dropped, or when the manifest cannot be read; [`OpenError::NoManifest`],
/// [`OpenError::NotOwner`].
pub async fn open_compaction_region(
    env: &RegionEnv,
    sets: &HookSets,
    request: OpenCompactionRegionRequest,
) -> Result<CompactionRegion, OpenError> {
    let env = env.clone().with_plugins(sets.get(&request.hooks, Instant::now())?);
    let dir = request.dir;
    env.plugins.set_table_name(dir.table_id, request.table_name.as_deref());
    let region = CompactionRegion {
        manifest: ManifestContext::new(env.clone(), dir),
        hooks: RegionHooks::new(&env, dir),
        env,
        spec: RegionSpec {
            region_id: dir.region_id,
            table_id: dir.table_id,
            incarnation: dir.incarnation,
            schema: request.schema,
            options: request.options,
            range: KeyRange::whole(),
            parents: Vec::new(),
        },
        owner: request.owner,
        since: request.since,
        limits: request.limits,
    };
    region.read().await?;
    Ok(region)
}

impl CompactionRegion {
    /// Id of the region.
    pub fn dir(&self) -> RegionDir {
        self.manifest.state().dir
    }

    /// Returns the owner that opened it.
    pub fn owner(&self) -> OwnerEpoch {
        self.owner.0
    }

    /// Returns the resources that a job may use.
    pub fn limits(&self) -> CompactionLimits {
        self.limits
    }

    /// Returns the manifest version that was read last.
    pub fn manifest_version(&self) -> ManifestVersion {
        self.manifest.state().version
    }

    /// Reads the manifest to its tail and makes a job of a plan. Starts no work.
    ///
    /// # Errors
    /// As [`open_compaction_region`], and [`OpenError::Plan`].
    pub async fn prepare(&self, plan: &CompactionPlan) -> Result<CompactionJob, OpenError> {
        self.read().await?;
        let state = self.manifest.state();
        let opened = self.since.max(state.since);
        if plan.since > opened {
            return Err(PlanError::Since { plan: plan.since, opened }.into());
        }
        self.env.check_clock(state.dir.region_id)?;
        let now_ms = self.env.clock.now_ms();
        Ok(resolve(plan, &state, self.spec.as_of(&state), now_ms)?)
    }

    /// Executes a job: merges within `limits`, notifies the hooks, commits, notifies the hooks
    /// again. The commit succeeds even if another owner has the region by then, as long as all
    /// inputs are live.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`]; [`EngineError::Refused`] when the files were compacted,
    /// truncated or dropped during the job, or the outputs are so old that they may have been
    /// collected; those of the store and of a commit. Nothing has changed after any of them except
    /// [`EngineError::Unknown`].
    pub async fn run(
        &self,
        job: &CompactionJob,
        limits: CompactionLimits,
        attempt: &Attempt,
    ) -> Result<CommittedCompaction, EngineError> {
        let target =
            CompactionTarget { manifest: &self.manifest, hooks: &self.hooks, spec: &self.spec };
        Compactor::new(self.env.clone()).with_limits(limits).compact(target, job, attempt).await
    }

    /// After a commit of unknown outcome: reads the manifest until the outcome is known, at most
    /// for `within`. If the commit succeeded, the hooks are notified now.
    pub async fn settle(&self, within: Duration) {
        let resolve_outcome = async {
            loop {
                if let Err(error) = self.manifest.refresh().await {
                    tracing::debug!(region = %self.dir(), %error, "commit outcome still unknown");
                }
                if !self.manifest.has_pending_commit().await {
                    return;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        // The owner of the region resolves the outcome in any case.
        let _ = tokio::time::timeout(within, resolve_outcome).await;
    }

    async fn read(&self) -> Result<(), OpenError> {
        self.manifest.refresh().await?;
        check_owner(&self.manifest.state(), self.owner)
    }
}

/// Checks that the caller is the owner recorded in the manifest.
fn check_owner(state: &ManifestState, caller: (OwnerEpoch, GroupId)) -> Result<(), OpenError> {
    let region = state.dir.region_id;
    if state.is_removed() {
        return Err(EngineError::Removed { region }.into());
    }
    if state.version == ManifestVersion(0) {
        return Err(OpenError::NoManifest { region });
    }
    let (own, group) = caller;
    match state.owner {
        Some(owner) if owner.epoch == own && owner.group == group => Ok(()),
        Some(owner) if owner.epoch >= own => {
            Err(EngineError::Fenced { region, own, later: owner.epoch }.into())
        }
        _ => Err(OpenError::NotOwner { region, caller: own }),
    }
}
