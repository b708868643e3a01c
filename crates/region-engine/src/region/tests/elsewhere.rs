//! A compactor for the tests of a region: it has the region's store, and what is sent to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use serde_json::Value;
use tidewater_common::ids::{Epoch, NodeId};
use tidewater_proto::compaction::v1;
use tokio::sync::Semaphore;

use super::world::*;
use crate::compaction::{
    Attempt, CommittedCompaction, CompactionJob, CompactionLimits, CompactionPlan,
    CompactionRegion, OpenCompactionRegionRequest, OpenError, Scope, open_compaction_region,
};
use crate::env::RegionEnv;
use crate::hooks::{
    HookError, HookHome, HookKind, HookKinds, HookLimits, HookSets, HookSpec, RegionHook,
    RegionHookRef, SstFileInfo,
};
use crate::region::{PlannedCompaction, Settled};
use crate::{EngineError, Region, RegionSpec};

/// What a job of these tests may use.
pub(super) const LIMITS: CompactionLimits =
    CompactionLimits { parallelism: 3, memory_bytes: 1 << 30 };

/// A kind that knows one hook.
#[derive(Debug)]
struct Only(RegionHookRef);

impl HookKind for Only {
    fn kind(&self) -> &'static str {
        "only"
    }

    fn check(&self, _: &Value) -> Result<(), String> {
        Ok(())
    }

    fn make(&self, _: &HookSpec, _: HookHome) -> Result<RegionHookRef, String> {
        Ok(self.0.clone())
    }
}

/// Kinds of a compactor: [`plugin`] asks for this hook.
pub(super) fn sets(hook: RegionHookRef) -> HookSets {
    let mut kinds = HookKinds::default();
    kinds.register(Arc::new(Only(hook))).unwrap();
    // A hook of these tests may wait for as long as it likes.
    let limits = HookLimits { time_limit: Duration::from_secs(3_600), ..HookLimits::default() };
    HookSets::new(kinds, HookHome { role: "compactor", node_id: NodeId(7) }, limits)
}

pub(super) fn plugin() -> HookSpec {
    let (name, kind) = ("passed".to_owned(), "only".to_owned());
    HookSpec { name, kind, config: Value::Null, durable: false, generation: 1 }
}

/// What the owner of a region asks a compactor.
pub(super) fn request(region: &Region, term: u64) -> OpenCompactionRegionRequest {
    OpenCompactionRegionRequest {
        dir: region.dir,
        schema: region.spec().schema.clone(),
        options: region.spec().options.clone(),
        owner: (owner(term), GROUP),
        since: Epoch(0),
        limits: LIMITS,
        hooks: vec![plugin()],
    }
}

/// As it arrives.
pub(super) fn sent(plan: &CompactionPlan) -> CompactionPlan {
    let bytes = v1::CompactionPlan::from(plan).encode_to_vec();
    v1::CompactionPlan::decode(bytes.as_slice()).unwrap().try_into().unwrap()
}

/// Lets a compactor sleep between its merge and its commit.
#[derive(Debug)]
pub(super) struct Gate {
    reached: Semaphore,
    opened: Semaphore,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { reached: Semaphore::new(0), opened: Semaphore::new(0) })
    }

    /// The files are written.
    pub(super) async fn reached(&self) {
        let reached = tokio::time::timeout(Duration::from_secs(60), self.reached.acquire()).await;
        reached.expect("the hook was called").unwrap().forget();
    }

    pub(super) fn open(&self) {
        self.opened.add_permits(1);
    }
}

#[async_trait]
impl RegionHook for Gate {
    fn name(&self) -> &str {
        "gate"
    }

    async fn on_sst_files_written(
        &self,
        _: tidewater_common::ids::RegionId,
        _: &RegionSpec,
        _: &[SstFileInfo],
    ) -> Result<(), HookError> {
        self.reached.add_permits(1);
        self.opened.acquire().await.map_err(HookError::new)?.forget();
        Ok(())
    }
}

/// A hook that takes no interest.
#[derive(Debug)]
pub(super) struct Silent;

impl RegionHook for Silent {
    fn name(&self) -> &str {
        "silent"
    }
}

/// A region that a compactor has opened, and a job of a plan that was sent to it.
pub(super) struct Elsewhere {
    pub(super) region: CompactionRegion,
    pub(super) job: CompactionJob,
}

impl Elsewhere {
    pub(super) async fn prepared(
        env: &RegionEnv,
        hook: RegionHookRef,
        request: OpenCompactionRegionRequest,
        plan: &CompactionPlan,
    ) -> Result<Self, OpenError> {
        let region = open_compaction_region(env, &sets(hook), request).await?;
        let job = region.prepare(&sent(plan)).await?;
        Ok(Self { region, job })
    }

    /// Of a world whose region owns itself.
    pub(super) async fn of(world: &World, hook: RegionHookRef, plan: &CompactionPlan) -> Self {
        let request = request(&world.region, world.term);
        Self::prepared(&world.env(), hook, request, plan).await.unwrap()
    }

    pub(super) async fn run(&self, attempt: &Attempt) -> Result<CommittedCompaction, EngineError> {
        self.region.run(&self.job, LIMITS, attempt).await
    }
}

pub(super) async fn planned(world: &World, scope: Scope) -> Option<PlannedCompaction> {
    world.region.plan_compaction(scope, Epoch(0)).await.unwrap()
}

/// Has a region compacted elsewhere; `None`: there was nothing to do.
pub(super) async fn compacted(world: &World, scope: Scope) -> Option<CommittedCompaction> {
    let planned = planned(world, scope).await?;
    let elsewhere = Elsewhere::of(world, Arc::new(Silent), planned.plan()).await;
    let committed = elsewhere.run(&Attempt::default()).await.unwrap();
    let settled = planned.settle().await.unwrap();
    assert_eq!(settled, committed_as(&committed));
    Some(committed)
}

/// What the owner finds of it in the manifest.
pub(super) fn committed_as(committed: &CommittedCompaction) -> Settled {
    let files_out = committed.outputs.len();
    Settled::Committed { version: committed.manifest_version, files_out }
}
