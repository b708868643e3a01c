//! Begins a staging area.

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{AreaOpened, OpenAreaRequest, OpenAreaResponse};

use super::settle::decide_and_record;
use crate::group::entry;
use crate::groups::Groups;

pub(super) async fn call(
    groups: &Groups,
    request: OpenAreaRequest,
) -> Result<OpenAreaResponse, Refusal> {
    let opened = AreaOpened {
        region_id: request.region_id,
        area_id: request.area_id,
        deadline_ms: request.deadline_ms,
        step: request.step,
    };
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    decide_and_record(groups, group, region, entry::area_opened(opened)).await?;
    Ok(OpenAreaResponse {})
}
