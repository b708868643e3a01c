//! What changes of a region share: the log decides, then the owner's manifest has to record it.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::oneshot;

use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;
use crate::owner_request::{Adoption, OwnerRequest};

const DECIDE: Duration = Duration::from_secs(10);
const RECORD: Duration = Duration::from_secs(20);
/// All of the files are read.
const ADOPT: Duration = Duration::from_secs(60);

/// Proposes an entry, and waits until the manifest has recorded it. Asking again is harmless: the
/// entry names the step that it carries out.
pub(super) async fn decide_and_record(
    groups: &Groups,
    group: GroupId,
    region: RegionId,
    entry: Bytes,
) -> Result<(), Refusal> {
    let replica = groups.get(group)?;
    replica.require_leader()?;
    replica.propose(entry, DECIDE).await?.into_result()?;
    let what = "recording a change in the manifest";
    ask(&replica, RECORD, what, |asker| OwnerRequest::Settle(region, asker)).await
}

/// Has the owner take files over, and returns how many. Asking again is harmless.
pub(crate) async fn ask_to_adopt(
    groups: &Groups,
    group: GroupId,
    adoption: Adoption,
) -> Result<u32, Refusal> {
    let replica = groups.get(group)?;
    replica.require_leader()?;
    replica.region(adoption.region)?;
    ask(&replica, ADOPT, "taking files over", |asker| OwnerRequest::Adopt(adoption, asker)).await
}

/// Asks the owner for something and waits for it; the owner goes on when time is up.
pub(super) async fn ask<T>(
    replica: &GroupReplica,
    limit: Duration,
    what: &str,
    request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> OwnerRequest,
) -> Result<T, Refusal> {
    let group = replica.group();
    let (asker, answer) = oneshot::channel();
    replica.owner_requests.send(request(asker)).await.map_err(|_| {
        Refusal::new(Reason::GroupNotHosted, format!("group {group} is being stopped here"))
    })?;
    tokio::time::timeout(limit, answer)
        .await
        .map_err(|_| refusals::deadline(what, group))?
        .unwrap_or_else(|_| Err(refusals::leadership_lost(group)))
}
