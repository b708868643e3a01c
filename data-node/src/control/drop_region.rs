//! Drops a region: `Remove` in its manifest first, so that whoever finds the objects later knows,
//! then `dropped` in the log.

use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{DropRegionRequest, DropRegionResponse};

use super::settle::ask;
use crate::group::entry;
use crate::groups::Groups;
use crate::owner_request::OwnerRequest;

const REMOVE: Duration = Duration::from_secs(20);
const DROP: Duration = Duration::from_secs(10);

pub(super) async fn call(
    groups: &Groups,
    request: DropRegionRequest,
) -> Result<DropRegionResponse, Refusal> {
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    let replica = groups.get(group)?;
    // The registry must be current to say that the region is gone already.
    replica.confirm(DROP).await?;
    if replica.shared.regions.get(region).is_some() {
        let removed = |asker| OwnerRequest::Remove(region, asker);
        ask(&replica, REMOVE, "dropping a region", removed).await?;
    }
    // Also for a region that is not hosted: a late `opened` must not bring it back.
    replica.propose(entry::dropped(region), DROP).await?.into_result()?;
    Ok(DropRegionResponse {})
}
