//! Forgets all rows of a region.

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{RegionTruncated, TruncateRegionRequest, TruncateRegionResponse};

use super::settle::decide_and_record;
use crate::group::entry;
use crate::groups::Groups;

pub(super) async fn call(
    groups: &Groups,
    request: TruncateRegionRequest,
) -> Result<TruncateRegionResponse, Refusal> {
    let truncated = RegionTruncated { region_id: request.region_id, step: request.step };
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    decide_and_record(groups, group, region, entry::truncated(truncated)).await?;
    Ok(TruncateRegionResponse {})
}
