//! A region as a compactor sees it: its manifest and its place in the store, and no rows in memory.

use std::time::Duration;

use tidewater_common::ids::{Epoch, GroupId, ManifestVersion, OwnerEpoch, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};
use tokio::time::Instant;

use super::compactor::{CommittedCompaction, CompactionLimits, CompactionTarget, Compactor};
use super::job::CompactionJob;
use super::plan::{CompactionPlan, PlanError, resolve};
use super::progress::Attempt;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::hooks::{HookSets, HookSetupError, HookSpec, RegionHooks};
use crate::layout::RegionDir;
use crate::manifest::{ManifestContext, ManifestState};
use crate::region::RegionSpec;

/// How far clocks of a cluster may be apart, in milliseconds.
const CLOCKS_APART_MS: u64 = 3_600_000;
/// How often a manifest is asked about a commit in doubt.
const LOOK: Duration = Duration::from_secs(1);

/// Which region to open, for whom, and with which hooks.
#[derive(Debug, Clone)]
pub struct OpenCompactionRegionRequest {
    /// Table, region, and where its objects lie.
    pub dir: RegionDir,
    /// Columns and keys, as the owner has them; the manifest's count where it has some.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live; likewise.
    pub options: TableOptions,
    /// Who asks: the region's owner, and the group that it leads.
    pub owner: (OwnerEpoch, GroupId),
    /// Plans may merge versions away up to this epoch.
    pub since: Epoch,
    /// What a job may use.
    pub limits: CompactionLimits,
    /// Hooks that are told of what is done; no others are.
    pub hooks: Vec<HookSpec>,
}

/// Why a region is not opened, or a plan not taken: nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// A hook cannot be made.
    #[error(transparent)]
    HookRegistration(#[from] HookSetupError),
    /// The manifest cannot be read, the region was dropped, or a later owner has it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing lies there.
    #[error("region {region} has no manifest in this object store: nobody has owned it yet")]
    NoManifest {
        /// The region.
        region: RegionId,
    },
    /// Who asks has not fenced the manifest, so others may be about to write to it.
    #[error("region {region}: {caller} does not own it by its manifest")]
    NotOwner {
        /// The region.
        region: RegionId,
        /// Who asks.
        caller: OwnerEpoch,
    },
    /// The plan does not fit the manifest.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// See the module's head.
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

/// Opens a region from its manifest in the store of `env`, to carry out compactions that its owner
/// has planned. Its hooks are made by `sets`, before anything is read.
///
/// # Errors
/// [`OpenError::Hook`] with the hook that cannot be made; [`OpenError::Engine`] with
/// [`EngineError::Fenced`] when a later owner has the region, [`EngineError::Removed`] when it was
/// dropped, or when the manifest cannot be read; [`OpenError::NoManifest`], [`OpenError::NotOwner`].
pub async fn open_compaction_region(
    env: &RegionEnv,
    sets: &HookSets,
    request: OpenCompactionRegionRequest,
) -> Result<CompactionRegion, OpenError> {
    let env = env.clone().with_plugins(sets.get(&request.hooks, Instant::now())?);
    let dir = request.dir;
    let region = CompactionRegion {
        manifest: ManifestContext::new(env.clone(), dir),
        hooks: RegionHooks::new(&env.plugins, dir),
        env,
        spec: RegionSpec {
            region_id: dir.region_id,
            table_id: dir.table_id,
            incarnation: dir.incarnation,
            schema: request.schema,
            options: request.options,
            range: KeyRange::whole(),
        },
        owner: request.owner,
        since: request.since,
        limits: request.limits,
    };
    region.read().await?;
    Ok(region)
}

impl CompactionRegion {
    /// The region.
    pub fn dir(&self) -> RegionDir {
        self.manifest.state().dir
    }

    /// Who opened it.
    pub fn owner(&self) -> OwnerEpoch {
        self.owner.0
    }

    /// What a job may use.
    pub fn limits(&self) -> CompactionLimits {
        self.limits
    }

    /// How far its manifest was read.
    pub fn manifest_version(&self) -> ManifestVersion {
        self.manifest.state().version
    }

    /// Reads the manifest to its tail and makes a job of a plan. Begins nothing.
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
        let (plan_ms, now_ms) = (plan.now_ms, self.env.clock.now_ms());
        if plan_ms > now_ms.saturating_add(CLOCKS_APART_MS) {
            return Err(PlanError::Time { plan_ms, now_ms }.into());
        }
        Ok(resolve(plan, &state, self.spec.as_of(&state))?)
    }

    /// Carries out a job: merges within `limits`, tells the hooks, commits, tells the hooks. It stands
    /// also when the region has got another owner meanwhile, as long as all inputs are live.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`]; [`EngineError::Refused`] when the files were merged, truncated or
    /// dropped meanwhile, or the outputs are so old that they may have been collected; those of the
    /// store and of a commit. Nothing has changed after any of them but [`EngineError::Unknown`].
    pub async fn run(
        &self,
        job: &CompactionJob,
        limits: CompactionLimits,
        attempt: &Attempt,
    ) -> Result<CommittedCompaction, EngineError> {
        let target =
            CompactionTarget { manifest: &self.manifest, hooks: &self.hooks, spec: &self.spec };
        Compactor::new(self.env.clone()).within(limits).compact(target, job, attempt).await
    }

    /// After a commit of unknown outcome: asks until the manifest tells, or until `within` is over.
    /// If it stands, the hooks are told of it now.
    pub async fn settle(&self, within: Duration) {
        let settling = async {
            loop {
                if let Err(error) = self.manifest.refresh().await {
                    tracing::debug!(region = %self.dir(), %error, "a commit is still in doubt");
                }
                if !self.manifest.has_pending_commit().await {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        // Whoever owns the region finds out in any case.
        let _ = tokio::time::timeout(within, settling).await;
    }

    async fn read(&self) -> Result<(), OpenError> {
        self.manifest.refresh().await?;
        owned(&self.manifest.state(), self.owner)
    }
}

/// Only who owns a region by its manifest has it compacted.
fn owned(state: &ManifestState, caller: (OwnerEpoch, GroupId)) -> Result<(), OpenError> {
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
