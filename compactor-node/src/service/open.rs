//! Opening a region: everything that can be refused is refused here, before any work.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{Epoch, GroupId, OwnerEpoch, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::{OpenCompactionRegionRequest, OpenCompactionRegionResponse};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::{
    self, CompactionLimits, CompactionRegion, OpenError, open_compaction_region,
};
use tidewater_region_engine::hooks::HookSpec;
use tidewater_region_engine::layout::RegionDir;
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

use crate::admission::NotTaken;
use crate::meters;
use crate::parts::NodeParts;

pub(super) async fn call(
    parts: &NodeParts,
    request: OpenCompactionRegionRequest,
) -> Result<OpenCompactionRegionResponse, Refusal> {
    if parts.jobs.in_use().draining {
        return Err(NotTaken::Draining.into());
    }
    let ours = parts.object_store_id.to_string();
    if request.object_store_id != ours {
        return Err(Refusal::new(
            Reason::ObjectStoreMismatch,
            format!(
                "the region lies in object store {:?}, this compactor works on {ours}",
                request.object_store_id
            ),
        ));
    }
    let source = request.header.as_ref().map_or(0, |header| header.source_node);
    let request = parse(request, parts.jobs.capacity().slots)?;
    let (dir, owner) = (request.dir, request.owner.0);
    let opened = {
        let _permit = parts.may_read_a_manifest().await?;
        open_compaction_region(&parts.env, &parts.sets, request).await
    };
    let region = Arc::new(opened.map_err(|error: OpenError| Refusal::from(&error))?);
    let handle = Uuid::new_v4();
    let idle = insert(parts, handle, dir, owner, region.clone())?;
    meters::opened();
    parts.observe();
    info!(%handle, region = %dir, %owner, source, "region opened for compaction");
    Ok(OpenCompactionRegionResponse {
        handle: handle.to_string(),
        manifest_version: region.manifest_version().get(),
        idle_ms: u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
    })
}

fn insert(
    parts: &NodeParts,
    handle: Uuid,
    dir: RegionDir,
    owner: OwnerEpoch,
    region: Arc<CompactionRegion>,
) -> Result<Duration, Refusal> {
    let mut handles = parts.handles.lock();
    handles.insert(handle, dir, owner, region, Instant::now())?;
    Ok(handles.life())
}

/// What the engine takes. `slots`: sub-jobs of a job whose owner does not say how many it may have.
fn parse(
    request: OpenCompactionRegionRequest,
    slots: usize,
) -> Result<compaction::OpenCompactionRegionRequest, Refusal> {
    let malformed = |detail: String| Refusal::new(Reason::InvalidArgument, detail);
    let missing = |field: &str| malformed(format!("an open request names its {field}"));
    let dir = request.dir.ok_or_else(|| missing("region"))?;
    let schema = request.schema.as_ref().ok_or_else(|| missing("schema"))?;
    let options = request.options.as_ref().ok_or_else(|| missing("table options"))?;
    let owner = request.owner_epoch.ok_or_else(|| missing("owner epoch"))?;
    let plugins = request
        .plugins
        .into_iter()
        .map(HookSpec::try_from)
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(Reason::BadPlugin, error.to_string()))?;
    let parallelism = match request.parallelism {
        0 => slots,
        asked => usize::try_from(asked).unwrap_or(usize::MAX).min(slots),
    };
    let memory_bytes = match request.memory_bytes {
        0 => u64::MAX,
        asked => asked,
    };
    Ok(compaction::OpenCompactionRegionRequest {
        dir: dir.into(),
        schema: schema.try_into().map_err(|error| malformed(format!("the schema: {error}")))?,
        options: options
            .try_into()
            .map_err(|error| malformed(format!("the table options: {error}")))?,
        owner: (
            OwnerEpoch { move_epoch: owner.move_epoch, term: Term(owner.term) },
            GroupId(request.group_id),
        ),
        since: Epoch(request.since),
        limits: CompactionLimits { parallelism, memory_bytes },
        hooks: plugins,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[tokio::test]
    async fn a_job_may_use_what_its_owner_allows_and_no_more_than_all_slots() {
        let world = World::new().await;
        let region = world.small_region(9).await;
        let good = world.open_request(&region, 1);
        for (parallelism, memory_bytes, expected) in [
            (0, 0, CompactionLimits { parallelism: 3, memory_bytes: u64::MAX }),
            (2, 5, CompactionLimits { parallelism: 2, memory_bytes: 5 }),
            (9, 0, CompactionLimits { parallelism: 3, memory_bytes: u64::MAX }),
        ] {
            let request = OpenCompactionRegionRequest { parallelism, memory_bytes, ..good.clone() };
            assert_eq!(parse(request, 3).unwrap().limits, expected);
        }
        world.stopped().await;
    }
}
