//! Releases of the nodes as they report them: data nodes and compactors with each heartbeat, members of the
//! meta group when the leader asks them. In memory only: a new leader learns them within seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::ids::{BootNumber, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_members_client::MetaMembersClient;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::{attempt, timed};
use tokio::time::Instant;
use tonic::transport::Channel;

/// Age of a report beyond which it is not used: a node may have been started with another release since.
/// Nodes send heartbeats, and members are asked, every second.
const RECENT: Duration = Duration::from_secs(5);
/// Limit of the question to a member.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Release of a node, reported by one of its starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportedRelease {
    pub(crate) release: Release,
    /// Start that has reported the release; 0 for nodes that do not count.
    pub(crate) boot: BootNumber,
    /// The node holds back levels above this one.
    pub(crate) max_level: Option<FeatureLevel>,
}

impl ReportedRelease {
    /// Description of this process as a member of the meta group.
    pub(crate) fn own(max_level: Option<FeatureLevel>) -> Self {
        Self { release: Release::own(), boot: BootNumber(0), max_level }
    }
}

impl From<&v1::HeartbeatRequest> for ReportedRelease {
    fn from(request: &v1::HeartbeatRequest) -> Self {
        let release = request.release.clone().into();
        Self { release, boot: BootNumber(request.boot), max_level: None }
    }
}

impl From<v1::DescribeMemberResponse> for ReportedRelease {
    fn from(response: v1::DescribeMemberResponse) -> Self {
        let max_level = (response.max_level != 0).then(|| FeatureLevel::new(response.max_level));
        Self { release: response.release.into(), boot: BootNumber(0), max_level }
    }
}

/// Last report of each node, and its time.
#[derive(Debug, Default)]
pub(crate) struct Releases(Mutex<BTreeMap<NodeId, (ReportedRelease, Instant)>>);

impl Releases {
    /// Forgets all reports.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Records the report of a node.
    pub(crate) fn record(&self, node: NodeId, reported: ReportedRelease, now: Instant) {
        self.0.lock().insert(node, (reported, now));
    }

    /// Removes the report of a node that does not answer.
    pub(super) fn remove(&self, node: NodeId) {
        self.0.lock().remove(&node);
    }

    /// Removes the reports of nodes that are not in the catalog.
    pub(super) fn retain_nodes(&self, is_known: impl Fn(NodeId) -> bool) {
        self.0.lock().retain(|node, _| is_known(*node));
    }

    /// Returns the reports that are recent at `now`.
    pub(crate) fn recent(&self, now: Instant) -> BTreeMap<NodeId, ReportedRelease> {
        let reports = self.0.lock();
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= RECENT;
        let recent = reports.iter().filter(|(_, (_, at))| is_recent(*at));
        recent.map(|(node, (reported, _))| (*node, reported.clone())).collect()
    }
}

/// Asks the meta node at `address` for its release. A node of a release without levels does not know the call.
pub(crate) async fn ask_member(
    channel: Channel,
    address: &str,
    node: NodeId,
) -> Result<ReportedRelease, Refusal> {
    let mut client = MetaMembersClient::new(channel);
    let request = timed(v1::DescribeMemberRequest { target_node: node.get() }, ASK_LIMIT);
    match attempt(address, ASK_LIMIT, client.describe_member(request)).await {
        Ok(response) => Ok(response.into()),
        Err(failed) if failed.refusal.reason == Reason::Unsupported => {
            let release = Release::without_levels();
            Ok(ReportedRelease { release, boot: BootNumber(0), max_level: None })
        }
        Err(failed) => Err(failed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_reports_do_not_count() {
        let releases = Releases::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        releases.record(NodeId(1), ReportedRelease::own(None), start);
        releases.record(NodeId(101), ReportedRelease::own(None), at(3));
        assert_eq!(releases.recent(at(5)).len(), 2);
        assert_eq!(releases.recent(at(6)).into_keys().collect::<Vec<_>>(), [NodeId(101)]);
        releases.retain_nodes(|node| node == NodeId(1));
        assert_eq!(releases.recent(start).into_keys().collect::<Vec<_>>(), [NodeId(1)]);
        releases.clear();
        assert!(releases.recent(start).is_empty());
    }

    #[test]
    fn reports_of_earlier_releases_have_the_first_level() {
        let heartbeat = v1::HeartbeatRequest { boot: 3, ..v1::HeartbeatRequest::default() };
        let reported = ReportedRelease::from(&heartbeat);
        assert_eq!(reported.release, Release::without_levels());
        assert_eq!(reported.boot, BootNumber(3));
        let member = ReportedRelease::from(v1::DescribeMemberResponse {
            max_level: 1,
            release: Some((&Release::own()).into()),
            ..v1::DescribeMemberResponse::default()
        });
        assert_eq!(member, ReportedRelease::own(Some(FeatureLevel::FIRST)));
    }
}
