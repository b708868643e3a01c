//! Opening of a region: all checks that can refuse a call are made before any work.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{Epoch, GroupId, OwnerEpoch, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::{OpenCompactionRegionRequest, OpenCompactionRegionResponse};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::admission::AdmissionError;
use tidewater_region_engine::compaction::{
    self, CompactionLimits, CompactionRegion, OpenError, open_compaction_region,
};
use tidewater_region_engine::hooks::HookSpec;
use tidewater_region_engine::layout::RegionDir;
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

use crate::context::CompactorContext;
use crate::meters;

pub(super) async fn call(
    context: &CompactorContext,
    request: OpenCompactionRegionRequest,
) -> Result<OpenCompactionRegionResponse, Refusal> {
    if context.jobs.in_use().draining {
        return Err(AdmissionError::Draining.into());
    }
    let own_store = context.object_store_id.to_string();
    if request.object_store_id != own_store {
        return Err(Refusal::new(
            Reason::ObjectStoreMismatch,
            format!(
                "the region is in object store {:?}, but this compactor uses {own_store}",
                request.object_store_id
            ),
        ));
    }
    let source = request.header.as_ref().map_or(0, |header| header.source_node);
    let request = parse(request, context.jobs.capacity().slots)?;
    let dir = request.dir;
    let (owner, _) = request.owner;
    context.events.opening(dir, &request.options);
    let opened = {
        let _permit = context.acquire_manifest_read().await?;
        open_compaction_region(&context.env, &context.sets, request).await
    };
    let region = Arc::new(opened.map_err(|error: OpenError| Refusal::from(&error))?);
    let handle = Uuid::new_v4();
    let idle = insert(context, handle, dir, owner, region.clone())?;
    meters::region_opened();
    context.observe();
    info!(%handle, region = %dir, %owner, source, "region opened for compaction");
    Ok(OpenCompactionRegionResponse {
        handle: handle.to_string(),
        manifest_version: region.manifest_version().get(),
        idle_ms: u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
        slow_operation_ms: context.events.limit_for_owners(),
    })
}

fn insert(
    context: &CompactorContext,
    handle: Uuid,
    dir: RegionDir,
    owner: OwnerEpoch,
    region: Arc<CompactionRegion>,
) -> Result<Duration, Refusal> {
    let mut handles = context.handles.lock();
    handles.insert(handle, dir, owner, region, Instant::now())?;
    Ok(handles.idle_limit())
}

/// Converts a request for the engine. `slots` is the number of sub-jobs if the owner sets no limit.
fn parse(
    request: OpenCompactionRegionRequest,
    slots: usize,
) -> Result<compaction::OpenCompactionRegionRequest, Refusal> {
    let malformed = |detail: String| Refusal::new(Reason::InvalidArgument, detail);
    let missing = |field: &str| malformed(format!("the open request lacks its {field}"));
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
        requested => usize::try_from(requested).unwrap_or(usize::MAX).min(slots),
    };
    let memory_bytes = match request.memory_bytes {
        0 => u64::MAX,
        requested => requested,
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
        table_name: Some(request.table_name).filter(|name| !name.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CompactorFixture;

    #[tokio::test]
    async fn job_limits_are_bounded_by_owner_and_slots() {
        let world = CompactorFixture::new().await;
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

    #[tokio::test]
    async fn table_name_of_older_owners_is_unknown() {
        let world = CompactorFixture::new().await;
        let region = world.small_region(9).await;
        let good = world.open_request(&region, 1);
        let named = OpenCompactionRegionRequest { table_name: "flights".into(), ..good.clone() };
        assert_eq!(parse(named, 3).unwrap().table_name.as_deref(), Some("flights"));
        assert_eq!(parse(good, 3).unwrap().table_name, None);
        world.stopped().await;
    }
}
