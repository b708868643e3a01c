//! A follower is short of memory: the owner flushes as much as that one must get rid of.

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{RequestFlushRequest, RequestFlushResponse};

use crate::groups::Groups;
use crate::owner_request::OwnerRequest;

pub(super) async fn call(
    groups: &Groups,
    request: RequestFlushRequest,
) -> Result<RequestFlushResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let wanted = match request.over_bytes {
        // An asker of an older release does not say.
        0 => OwnerRequest::FlushLarge,
        over => OwnerRequest::FreeMemory(over),
    };
    // A full queue means that flushes are asked for already.
    let _ = replica.owner_requests.try_send(wanted);
    Ok(RequestFlushResponse {})
}
