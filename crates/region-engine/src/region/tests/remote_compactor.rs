//! Test compactor: knows the region's store and the requests that it receives.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use serde_json::Value;
use tidewater_common::ids::NodeId;
use tidewater_proto::compaction::v1;
use tokio::sync::Semaphore;

use super::fixture::*;
use crate::compaction::{
    Attempt, CommittedCompaction, CompactionJob, CompactionLimits, CompactionPlan,
    CompactionRegion, OpenCompactionRegionRequest, OpenError, Scope, open_compaction_region,
};
use crate::env::RegionEnv;
use crate::hooks::{
    HookError, HookHome, HookKind, HookKinds, HookLimits, HookSets, HookSpec, RegionHook,
    RegionHookRef, SstFileInfo,
};
use crate::region::{CompactionOutcome, PlannedCompaction};
use crate::{EngineError, Region, RegionSpec};

/// CompactionLimits of the test jobs.
pub(super) const LIMITS: CompactionLimits =
    CompactionLimits { parallelism: 3, memory_bytes: 1 << 30 };

/// Hook kind whose only instance is a given hook.
#[derive(Debug)]
struct SingleHookKind(RegionHookRef);

impl HookKind for SingleHookKind {
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

/// Returns the hook registry of a compactor, in which [`plugin`] names this hook.
pub(super) fn plugin_sets(hook: RegionHookRef) -> HookSets {
    let mut kinds = HookKinds::default();
    kinds.register(Arc::new(SingleHookKind(hook))).unwrap();
    // Hooks of these tests may wait indefinitely.
    let limits = HookLimits { time_limit: Duration::from_secs(3_600), ..HookLimits::default() };
    HookSets::new(kinds, HookHome { role: "compactor", node_id: NodeId(7) }, limits)
}

pub(super) fn plugin() -> HookSpec {
    HookSpec {
        name: "passed".to_owned(),
        kind: "only".to_owned(),
        config: Value::Null,
        durable: false,
        generation: 1,
    }
}

/// Returns the request of a region's owner to a compactor.
pub(super) fn request(region: &Region, term: u64) -> OpenCompactionRegionRequest {
    OpenCompactionRegionRequest {
        dir: region.dir,
        schema: region.spec().schema.clone(),
        options: region.spec().options.clone(),
        owner: (owner(term), GROUP),
        since: region.since(),
        limits: LIMITS,
        hooks: vec![plugin()],
        table_name: None,
    }
}

/// Encodes and decodes a plan, as when it is sent to a compactor.
pub(super) fn via_wire(plan: &CompactionPlan) -> CompactionPlan {
    let bytes = v1::CompactionPlan::from(plan).encode_to_vec();
    v1::CompactionPlan::decode(bytes.as_slice()).unwrap().try_into().unwrap()
}

/// Hook that blocks a compactor between writing its files and its commit.
#[derive(Debug)]
pub(super) struct CommitGate {
    reached: Semaphore,
    opened: Semaphore,
}

impl CommitGate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { reached: Semaphore::new(0), opened: Semaphore::new(0) })
    }

    /// Waits until the files are written.
    pub(super) async fn reached(&self) {
        let reached = tokio::time::timeout(Duration::from_secs(60), self.reached.acquire()).await;
        reached.expect("the hook was called").unwrap().forget();
    }

    pub(super) fn open(&self) {
        self.opened.add_permits(1);
    }
}

#[async_trait]
impl RegionHook for CommitGate {
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

/// Hook that ignores all calls.
#[derive(Debug)]
pub(super) struct NoopHook;

impl RegionHook for NoopHook {
    fn name(&self) -> &str {
        "silent"
    }
}

/// A region that a compactor has opened, and the job of a plan that it has received.
pub(super) struct RemoteJob {
    pub(super) region: CompactionRegion,
    pub(super) job: CompactionJob,
}

impl RemoteJob {
    pub(super) async fn prepare_with(
        env: &RegionEnv,
        hook: RegionHookRef,
        request: OpenCompactionRegionRequest,
        plan: &CompactionPlan,
    ) -> Result<Self, OpenError> {
        let region = open_compaction_region(env, &plugin_sets(hook), request).await?;
        let job = region.prepare(&via_wire(plan)).await?;
        Ok(Self { region, job })
    }

    /// Prepares the job on a compactor, for the current owner of the fixture's region.
    pub(super) async fn prepare(
        fixture: &RegionFixture,
        hook: RegionHookRef,
        plan: &CompactionPlan,
    ) -> Self {
        let request = request(&fixture.region, fixture.term);
        Self::prepare_with(&fixture.env(), hook, request, plan).await.unwrap()
    }

    pub(super) async fn run(&self, attempt: &Attempt) -> Result<CommittedCompaction, EngineError> {
        self.region.run(&self.job, LIMITS, attempt).await
    }
}

pub(super) async fn plan(fixture: &RegionFixture, scope: Scope) -> Option<PlannedCompaction> {
    fixture.region.plan_compaction(scope, fixture.region.since()).await.unwrap()
}

/// Compacts a region on a compactor; `None` if there was nothing to compact.
pub(super) async fn compact_remotely(
    fixture: &RegionFixture,
    scope: Scope,
) -> Option<CommittedCompaction> {
    let planned = plan(fixture, scope).await?;
    let remote_job = RemoteJob::prepare(fixture, Arc::new(NoopHook), planned.plan()).await;
    let committed = remote_job.run(&Attempt::default()).await.unwrap();
    let outcome = planned.resolve_outcome().await.unwrap();
    assert_eq!(outcome, committed_outcome(&committed));
    Some(committed)
}

/// Returns the outcome that the owner finds in the manifest.
pub(super) fn committed_outcome(committed: &CommittedCompaction) -> CompactionOutcome {
    let files_out = committed.outputs.len();
    CompactionOutcome::Committed { version: committed.manifest_version, files_out }
}
