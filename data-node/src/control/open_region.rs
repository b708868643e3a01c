//! Puts a region on the group.

use std::time::Duration;

use tidewater_common::ids::{GroupId, Sequence};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{OpenRegionRequest, OpenRegionResponse, Reason};

use crate::group::descriptor::Descriptor;
use crate::group::entry;
use crate::groups::Groups;

const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn call(
    groups: &Groups,
    request: OpenRegionRequest,
) -> Result<OpenRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let wire = request.region.ok_or_else(|| {
        Refusal::new(Reason::InvalidArgument, "opening a region needs its description")
    })?;
    // Refused here already, so that the log never carries it.
    Descriptor::new(&wire)
        .map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?;
    replica.propose(entry::opened(wire, Sequence(request.base)), DEADLINE).await?.into_result()?;
    Ok(OpenRegionResponse {})
}
