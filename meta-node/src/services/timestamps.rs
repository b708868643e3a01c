//! Timestamps from the leader: below a ceiling that follows from replicated time, so that nothing is written for them.

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};

use super::watch::check_cluster;
use crate::group::MetaGroup;

/// Maximum number of timestamps of one call.
const MAX_COUNT: u32 = 1_000_000;

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
    let first = group.allocate_timestamps(count).await?;
    Ok(v1::NextTimestampsResponse { first: first.number(), count })
}
