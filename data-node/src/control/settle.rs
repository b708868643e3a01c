//! Shared part of the calls that change a region: the log decides, then the owner's manifest
//! records the decision.

use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tokio::sync::oneshot;

use crate::group::entry::EncodedEntry;
use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;
use crate::owner_request::{Adoption, OwnerRequest};

const DECIDE_TIMEOUT: Duration = Duration::from_secs(10);
const RECORD_TIMEOUT: Duration = Duration::from_secs(20);
/// Long, because the owner reads all files.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Proposes an entry and waits until the manifest has recorded it. Can be repeated: the entry names
/// the procedure step that it carries out.
pub(super) async fn decide_and_record(
    groups: &Groups,
    group: GroupId,
    region: RegionId,
    entry: EncodedEntry,
) -> Result<(), Refusal> {
    let replica = groups.get(group)?;
    replica.require_leader()?;
    replica.propose(entry, DECIDE_TIMEOUT).await?.into_result()?;
    let what = "recording a change in the manifest";
    call_owner(&replica, RECORD_TIMEOUT, what, |reply| OwnerRequest::Settle(region, reply)).await
}

/// Lets the owner adopt files and returns their number. Can be repeated.
pub(crate) async fn adopt_files(
    groups: &Groups,
    group: GroupId,
    adoption: Adoption,
) -> Result<u32, Refusal> {
    let replica = groups.get(group)?;
    replica.require_leader()?;
    replica.region(adoption.region)?;
    let what = "an adoption of files";
    call_owner(&replica, ADOPT_TIMEOUT, what, |reply| OwnerRequest::Adopt(adoption, reply)).await
}

/// Sends a request to the owner and waits for its reply; the owner continues after the time limit.
pub(crate) async fn call_owner<T>(
    replica: &GroupReplica,
    limit: Duration,
    what: &str,
    request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> OwnerRequest,
) -> Result<T, Refusal> {
    let group = replica.group();
    let (sender, reply) = oneshot::channel();
    replica
        .owner_requests
        .send(request(sender))
        .await
        .map_err(|_| refusals::replica_stopping(group))?;
    tokio::time::timeout(limit, reply)
        .await
        .map_err(|_| refusals::deadline_exceeded(what, group))?
        .unwrap_or_else(|_| Err(refusals::leadership_lost(group)))
}
