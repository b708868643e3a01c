//! Connections to the nodes at intervals. Heartbeats do not show whether a node can be reached: the node
//! opens their connection, and keeps it. Members of the meta group, which send no heartbeats, return the comparison of
//! their catalogs with the leader's, and their conditions.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tidewater_common::ids::{LogIndex, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{CompareStateRequest, NodeRole, NodeState, Reason};
use tidewater_rpc::{ConnectPolicy, attempt, timed};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::ProblemWatch;
use crate::catalog::{FIRST_NODE_ID, Node};
use crate::leader::MemberDifference;

/// Interval between two connections to a node.
const INTERVAL: Duration = Duration::from_secs(5);
/// Limit of one connection and its call.
const LIMIT: Duration = Duration::from_secs(4);
/// Nodes that are probed at the same time.
const CONCURRENT_PROBES: usize = 32;

/// Probes the other members of the meta group, and all nodes that are up, at intervals while this node leads,
/// until `stop`.
pub(crate) async fn run(watch: Arc<ProblemWatch>, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if watch.group.leading().is_some() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = probe_all(&watch) => {}
            }
        }
    }
}

async fn probe_all(watch: &ProblemWatch) {
    let nodes: Vec<(NodeId, String)> = {
        let state = watch.group.view.read();
        let is_up = |node: &&Arc<Node>| node.role != NodeRole::Meta && node.state == NodeState::Up;
        state.nodes().filter(is_up).map(|node| (node.id, node.address.clone())).collect()
    };
    let own = watch.group.node_id;
    let members = watch.group.members().members.into_iter();
    let members = members.map(|member| (NodeId(member.node_id), member.address));
    let nodes = members.filter(|(node, _)| *node != own).chain(nodes);
    stream::iter(nodes)
        .for_each_concurrent(CONCURRENT_PROBES, |(node, address)| async move {
            let error = probe(&address).await.err().map(|error| error.message);
            let is_reachable = error.is_none();
            watch.observations.record_probe(node, error, Instant::now());
            if is_reachable && node < FIRST_NODE_ID {
                compare(watch, node, &address).await;
            }
        })
        .await;
}

/// Records the conditions of a member, and whether its catalog differs from this leader's. Without an answer, e.g. of a
/// member of an older release, the last comparison counts, and the member has no conditions.
async fn compare(watch: &ProblemWatch, node: NodeId, address: &str) {
    let cluster_id = watch.group.cluster_id.to_string();
    let request = timed(CompareStateRequest { cluster_id, target_node: node.get() }, LIMIT);
    let Ok(channel) = ConnectPolicy::CONTROL.channel(address) else { return };
    let mut client = MetaClient::new(channel);
    match attempt(address, LIMIT, client.compare_state(request)).await {
        Ok(answer) => {
            let first = LogIndex(answer.first_index);
            let difference = MemberDifference { first, since_ms: answer.since_ms };
            let difference = (answer.first_index != 0).then_some(difference);
            watch.observations.record_comparison(node, difference);
            watch.observations.record_member_conditions(node, &answer.conditions);
        }
        Err(failed) => {
            watch.observations.record_member_conditions(node, &[]);
            tracing::debug!(%node, problem = %failed.refusal, "a meta member did not compare its catalog");
        }
    }
}

/// Opens a new connection and makes one call. Each answer is a success: the node accepts connections.
async fn probe(address: &str) -> Result<(), Refusal> {
    let mut client = HealthClient::new(ConnectPolicy::CONTROL.channel(address)?);
    let request = timed(HealthCheckRequest { service: String::new() }, LIMIT);
    match attempt(address, LIMIT, client.check(request)).await {
        Ok(_) => Ok(()),
        Err(failed) => {
            let refusal = Refusal::from(failed);
            match refusal.reason {
                Reason::Unavailable | Reason::DeadlineExceeded => Err(refusal),
                _ => Ok(()),
            }
        }
    }
}
