//! Publishes or abandons what is staged in an area that the log has opened.

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    AreaAbandoned, AreaContent, AreaPublished, CloseAreaRequest, CloseAreaResponse,
};

use super::settle::decide_and_record;
use crate::group::entry;
use crate::groups::Groups;

pub(super) async fn call(
    groups: &Groups,
    request: CloseAreaRequest,
) -> Result<CloseAreaResponse, Refusal> {
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    let (region_id, area_id, step) = (request.region_id, request.area_id, request.step);
    let entry = match request.publish {
        false => entry::area_abandoned(AreaAbandoned { region_id, area_id, step }),
        true => {
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
            })
        }
    };
    decide_and_record(groups, group, region, entry).await?;
    Ok(CloseAreaResponse {})
}
