//! What alter and truncate share: the log decides, then the owner's manifest has to record it.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::oneshot;

use crate::group::refusals;
use crate::groups::Groups;
use crate::leadership::FlushRequest;

const DECIDE: Duration = Duration::from_secs(10);
const RECORD: Duration = Duration::from_secs(20);

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
    let (asker, answer) = oneshot::channel();
    replica.flush_requests.send(FlushRequest::Settle(region, asker)).await.map_err(|_| {
        Refusal::new(Reason::GroupNotHosted, format!("group {group} is being stopped here"))
    })?;
    tokio::time::timeout(RECORD, answer)
        .await
        .map_err(|_| refusals::deadline("recording a change in the manifest", group))?
        .unwrap_or_else(|_| Err(refusals::leadership_lost(group)))
}
