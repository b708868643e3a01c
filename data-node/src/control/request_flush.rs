//! Flush request of a follower that is short of memory: the owner flushes the number of bytes that
//! exceed the follower's limit.

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{RequestFlushRequest, RequestFlushResponse};

use crate::groups::Groups;
use crate::leadership::FlushRequest;

pub(super) async fn call(
    groups: &Groups,
    request: RequestFlushRequest,
) -> Result<RequestFlushResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let request = match request.over_bytes {
        // A follower of an older release does not send the number.
        0 => FlushRequest::Large,
        over => FlushRequest::Free(over),
    };
    // A full queue already contains flush requests.
    let _ = replica.flush_requests.try_send(request);
    Ok(RequestFlushResponse {})
}
