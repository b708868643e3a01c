//! Gives a region another schema and other options.

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{AlterRegionRequest, AlterRegionResponse, RegionAltered};

use super::settle::decide_and_record;
use crate::group::entry;
use crate::groups::Groups;

pub(super) async fn call(
    groups: &Groups,
    request: AlterRegionRequest,
) -> Result<AlterRegionResponse, Refusal> {
    let altered = RegionAltered {
        region_id: request.region_id,
        schema: request.schema,
        options: request.options,
        step: request.step,
    };
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    decide_and_record(groups, group, region, entry::altered(altered)).await?;
    Ok(AlterRegionResponse {})
}
