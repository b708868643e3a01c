//! Fills an empty region with the files of another one, by reference.

use tidewater_common::ids::{GroupId, Incarnation, RegionId, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CopyRegionRequest, CopyRegionResponse, Reason};
use tidewater_region_engine::layout::RegionDir;

use super::settle::ask_to_adopt;
use crate::group::obligation::step_from_wire;
use crate::groups::Groups;
use crate::owner_request::{Adoption, AdoptionSource};

pub(super) async fn call(
    groups: &Groups,
    request: CopyRegionRequest,
) -> Result<CopyRegionResponse, Refusal> {
    let Some(step) = &request.step else {
        let message = "a copy names the step that causes it";
        return Err(Refusal::new(Reason::InvalidArgument, message));
    };
    let source = RegionDir {
        table_id: TableId(request.source_table_id),
        region_id: RegionId(request.source_region_id),
        incarnation: Incarnation(request.source_incarnation),
    };
    let source = AdoptionSource::Copies { source, step: step_from_wire(step) };
    let adoption = Adoption { region: RegionId(request.region_id), source, slot: None };
    ask_to_adopt(groups, GroupId(request.group_id), adoption).await?;
    Ok(CopyRegionResponse {})
}
