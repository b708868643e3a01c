//! Timestamps from the leader: below a ceiling that follows from replicated time, so that nothing is written for them.

use std::time::Duration;

use tidewater_catalog::PastCeiling;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};

use super::watch::check_cluster;
use crate::group::MetaGroup;

/// Maximum number of timestamps of one call.
const MAX_COUNT: u32 = 1_000_000;
/// Pause before a caller asks again for timestamps above the ceiling, which rises every second.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Allocates timestamps.
pub(super) async fn next(
    group: &MetaGroup,
    request: &v1::NextTimestampsRequest,
) -> Result<v1::NextTimestampsResponse, Refusal> {
    check_cluster(group.cluster_id, &request.cluster_id)?;
    let count = request.count.max(1);
    if count > MAX_COUNT {
        let text = format!("{count} timestamps are above the limit of {MAX_COUNT} for one call");
        return Err(Refusal::new(Reason::InvalidArgument, text));
    }
    let term = group.check_leading()?;
    // Before the confirmation: no later leader has advanced it.
    let before_ms = group.view.read().header().time_ms;
    group.linearize().await?;
    if group.check_leading()? != term {
        return Err(group.not_leader());
    }
    let after_ms = group.view.read().header().time_ms;
    let allocated = group.timestamps.lock().allocate(term, before_ms, after_ms, count);
    let first = allocated.map_err(|past: PastCeiling| {
        Refusal::new(Reason::Overloaded, past.to_string()).retry_after(RETRY_AFTER)
    })?;
    Ok(v1::NextTimestampsResponse { first: first.number(), count })
}
