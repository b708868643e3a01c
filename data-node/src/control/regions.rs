//! Calls that change a region: open, alter, truncate, copy, drop, and open or close a staging area.
//!
//! Most of them have one shape: the log decides, then the owner's manifest records the decision. Every
//! call can be repeated.

use std::time::Duration;

use tidewater_common::ids::{GroupId, Incarnation, RegionId, Sequence, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    AlterRegionRequest, AlterRegionResponse, AreaAbandoned, AreaContent, AreaOpened, AreaPublished,
    CloseAreaRequest, CloseAreaResponse, CopyRegionRequest, CopyRegionResponse, DropRegionRequest,
    DropRegionResponse, OpenAreaRequest, OpenAreaResponse, OpenRegionRequest, OpenRegionResponse,
    Reason, RegionAltered, RegionTruncated, TruncateRegionRequest, TruncateRegionResponse,
};
use tidewater_region_engine::layout::RegionDir;

use super::settle::{adopt_files, call_owner, decide_and_record};
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::obligation::step_from_wire;
use crate::group::{apply, entry};
use crate::groups::Groups;
use crate::owner_request::{Adoption, AdoptionSource, OwnerRequest};

const OPEN_DEADLINE: Duration = Duration::from_secs(10);
const REMOVE_DEADLINE: Duration = Duration::from_secs(20);
const DROP_DEADLINE: Duration = Duration::from_secs(10);

/// Adds a region to the group.
pub(super) async fn open(
    groups: &Groups,
    request: OpenRegionRequest,
) -> Result<OpenRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let wire = request.region.ok_or_else(|| {
        let message = "the request to open a region lacks its description";
        Refusal::new(Reason::InvalidArgument, message)
    })?;
    // Validated before the proposal, so that the log never carries an invalid description.
    Descriptor::new(&wire)
        .map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?;
    let entry = entry::opened(wire, Sequence(request.base));
    replica.propose(entry, OPEN_DEADLINE).await?.into_result()?;
    Ok(OpenRegionResponse {})
}

/// Changes a region's schema and options.
pub(super) async fn alter(
    groups: &Groups,
    request: AlterRegionRequest,
) -> Result<AlterRegionResponse, Refusal> {
    let altered = RegionAltered {
        region_id: request.region_id,
        schema: request.schema,
        options: request.options,
        step: request.step,
    };
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    if request.check_only {
        return check_alter(groups, group, &altered).await;
    }
    decide_and_record(groups, group, region, entry::altered(altered)).await?;
    Ok(AlterRegionResponse {})
}

/// Checks that a region can be altered, and that its group has a leader with a quorum.
async fn check_alter(
    groups: &Groups,
    group: GroupId,
    entry: &RegionAltered,
) -> Result<AlterRegionResponse, Refusal> {
    let replica = groups.get(group)?;
    replica.require_leader()?;
    replica.confirm(groups.context().options.read_deadline).await?;
    let checked = apply::check_altered(&replica.shared.state.read(), entry);
    checked.map_err(EntryOutcome::into_refusal)?;
    Ok(AlterRegionResponse {})
}

/// Deletes all rows of a region.
pub(super) async fn truncate(
    groups: &Groups,
    request: TruncateRegionRequest,
) -> Result<TruncateRegionResponse, Refusal> {
    let truncated = RegionTruncated { region_id: request.region_id, step: request.step };
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    decide_and_record(groups, group, region, entry::truncated(truncated)).await?;
    Ok(TruncateRegionResponse {})
}

/// Opens a staging area.
pub(super) async fn open_area(
    groups: &Groups,
    request: OpenAreaRequest,
) -> Result<OpenAreaResponse, Refusal> {
    let opened = AreaOpened {
        region_id: request.region_id,
        area_id: request.area_id,
        deadline_ms: request.deadline_ms,
        step: request.step,
    };
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    decide_and_record(groups, group, region, entry::area_opened(opened)).await?;
    Ok(OpenAreaResponse {})
}

/// Publishes or abandons a staging area that the log has opened.
pub(super) async fn close_area(
    groups: &Groups,
    request: CloseAreaRequest,
) -> Result<CloseAreaResponse, Refusal> {
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    let CloseAreaRequest { region_id, area_id, step, published_epoch, previous_until, .. } =
        request;
    let entry = if request.publish {
        // The procedure keeps schema and range as they were when the files were staged.
        let descriptor = groups.get(group)?.region(region)?.descriptor;
        entry::area_published(AreaPublished {
            region_id,
            area_id,
            content: AreaContent::Staged.into(),
            schema_version: descriptor.schema_version().get(),
            start: descriptor.range.start.clone().into(),
            end: descriptor.range.end.clone().map(Into::into),
            step,
            only_if_unwritten: false,
            epoch: 0,
        })
    } else {
        entry::area_abandoned(AreaAbandoned {
            region_id,
            area_id,
            step,
            published_epoch,
            previous_until,
        })
    };
    decide_and_record(groups, group, region, entry).await?;
    Ok(CloseAreaResponse {})
}

/// Fills an empty region with the files of another region, by reference.
pub(super) async fn copy(
    groups: &Groups,
    request: CopyRegionRequest,
) -> Result<CopyRegionResponse, Refusal> {
    let Some(step) = &request.step else {
        let message = "a copy must name the procedure step that causes it";
        return Err(Refusal::new(Reason::InvalidArgument, message));
    };
    let source = RegionDir {
        table_id: TableId(request.source_table_id),
        region_id: RegionId(request.source_region_id),
        incarnation: Incarnation(request.source_incarnation),
    };
    let source = AdoptionSource::Copies { source, step: step_from_wire(step) };
    let adoption = Adoption { region: RegionId(request.region_id), source, slot: None };
    adopt_files(groups, GroupId(request.group_id), adoption).await?;
    Ok(CopyRegionResponse {})
}

/// Drops a region: first `Remove` in its manifest, so that a later reader of the objects learns of the
/// removal, then `dropped` in the log.
pub(super) async fn drop(
    groups: &Groups,
    request: DropRegionRequest,
) -> Result<DropRegionResponse, Refusal> {
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    let replica = groups.get(group)?;
    // Only a current registry proves that the region was dropped already.
    replica.confirm(DROP_DEADLINE).await?;
    if replica.shared.regions.get(region).is_some() {
        let remove = |reply| OwnerRequest::Remove(region, reply);
        call_owner(&replica, REMOVE_DEADLINE, "dropping a region", remove).await?;
    }
    // Proposed also for a region that is not hosted: a late `opened` must not restore it.
    replica.propose(entry::dropped(region), DROP_DEADLINE).await?.into_result()?;
    Ok(DropRegionResponse {})
}
