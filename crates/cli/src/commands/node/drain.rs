//! `node drain N`

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tidewater_client::Client;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1;
use tokio::time::Instant;

use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output::fact;
use crate::text::time_span::TimeSpan;

/// Interval between looks at the groups of the node.
const POLL: Duration = Duration::from_secs(1);

/// Options of `node drain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater node drain 102\n  tidewater node remove 102\n\nReads and writes continue. An interrupted \
                  command does not end the drain: run it again to see the remaining groups, or take it back with --cancel."
)]
pub(crate) struct Options {
    /// Id of the data node
    node: u64,

    /// Take the drain back
    #[arg(long, conflicts_with = "within")]
    cancel: bool,

    /// Longest time to wait until the node is empty; 0s: return at once
    #[arg(long, value_name = "TIME", default_value = "30m")]
    within: TimeSpan,

    #[command(flatten)]
    client: ClientArgs,
}

/// Result of a drain. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Drained {
    node_id: u64,
    draining: bool,
    /// Groups with a replica on the node.
    groups_left: Vec<u64>,
}

impl Drained {
    fn text(&self) -> String {
        let Self { node_id, draining, groups_left } = self;
        match (draining, groups_left.is_empty()) {
            (false, _) => format!("node {node_id} is no longer draining"),
            (true, true) => {
                format!("node {node_id} is empty: remove it with `tidewater node remove {node_id}`")
            }
            (true, false) => {
                format!("node {node_id} is draining; replicas left: {}", listed(groups_left))
            }
        }
    }
}

fn listed(groups: &[u64]) -> String {
    let shown: Vec<String> = groups.iter().take(10).map(ToString::to_string).collect();
    let more = groups.len().saturating_sub(shown.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("of groups {}{rest}", shown.join(", "))
}

/// A drain that has begun. It is followed by reading: a repeated request would begin one again that another command has
/// taken back.
pub(super) struct BegunDrain<'a> {
    pub(super) client: &'a Client,
    pub(super) node: NodeId,
    /// The node that gets the replicas.
    pub(super) replacement: Option<NodeId>,
}

impl BegunDrain<'_> {
    /// Prints the groups left when they change, until none is left or the time has come; returns them.
    pub(super) async fn follow(
        &self,
        groups: &[GroupId],
        until: Instant,
    ) -> Result<Vec<u64>, Failure> {
        let mut left = ids(groups);
        while !left.is_empty() && Instant::now() < until {
            eprintln!("node {}: replicas left: {}", self.node, listed(&left));
            let shown = left.clone();
            while left == shown && Instant::now() < until {
                tokio::time::sleep(POLL).await;
                left = self.groups_left(&self.client.cluster_status().await?)?;
            }
        }
        Ok(left)
    }

    /// Returns the groups with a replica on the node, unless another command has changed the drain.
    fn groups_left(&self, status: &v1::ClusterStatusResponse) -> Result<Vec<u64>, Failure> {
        let node = self.node.get();
        let expected = self.replacement.map(NodeId::get);
        let is_changed =
            status.nodes.iter().find(|known| known.node_id == node).is_some_and(|known| {
                !known.draining || expected.is_some_and(|expected| known.replacement_id != expected)
            });
        if is_changed {
            let text = format!("another command has changed the drain of node {node}");
            return Err(Failure::new(Exit::Conflict, text));
        }
        let hosts = |group: &&v1::Group| {
            let first = if group.voters.is_empty() { &group.first_members } else { &group.voters };
            group.group_id != 0 && (first.contains(&node) || group.learners.contains(&node))
        };
        Ok(status.groups.iter().filter(hosts).map(|group| group.group_id).collect())
    }
}

/// Drains a node, and waits until it has no replicas.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let node = NodeId(options.node);
    let within = if options.cancel { Duration::ZERO } else { options.within.duration() };
    let until = Instant::now() + within;
    let groups = client.drain_node(node, options.cancel).await?;
    let begun = BegunDrain { client: &client, node, replacement: None };
    let left = begun.follow(&groups, until).await?;
    let drained = Drained { node_id: node.get(), draining: !options.cancel, groups_left: left };
    fact(options.client.output, &drained, Drained::text)?;
    if drained.groups_left.is_empty() || within.is_zero() { Ok(()) } else { Err(late()) }
}

/// Error of a command that ends before its node is empty.
pub(super) fn late() -> Failure {
    let text = "the node still has replicas; the drain continues, and waits as long as a group has no other node that is \
                up: `tidewater cluster status` shows for which";
    Failure::new(Exit::Unavailable, text)
}

fn ids(groups: &[GroupId]) -> Vec<u64> {
    groups.iter().map(|group| group.get()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_has_stable_json_fields() {
        let drained = Drained { node_id: 4, draining: true, groups_left: vec![7] };
        assert_eq!(
            serde_json::to_string(&drained).unwrap(),
            r#"{"node_id":4,"draining":true,"groups_left":[7]}"#
        );
        assert_eq!(drained.text(), "node 4 is draining; replicas left: of groups 7");
    }

    #[test]
    fn long_list_of_groups_is_shortened() {
        let groups: Vec<u64> = (1..=12).collect();
        assert_eq!(listed(&groups), "of groups 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
