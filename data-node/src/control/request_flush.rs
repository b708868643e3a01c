//! A follower is short of memory: the owner flushes what is large.

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
    // A full queue means that flushes are asked for already.
    let _ = replica.flush_requests.try_send(FlushRequest::Large);
    Ok(RequestFlushResponse {})
}
