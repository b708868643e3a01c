//! `node drain N`

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::{GroupId, NodeId};
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

/// Drains a node, and waits until it has no replicas.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let node = NodeId(options.node);
    let mut left = ids(&client.drain_node(node, options.cancel).await?);
    let until = Instant::now() + options.within.duration();
    let mut shown = None;
    while !options.cancel && !left.is_empty() && Instant::now() < until {
        if shown.as_ref() != Some(&left) {
            eprintln!("node {node}: replicas left: {}", listed(&left));
            shown = Some(left);
        }
        tokio::time::sleep(POLL).await;
        left = ids(&client.drain_node(node, false).await?);
    }
    let drained = Drained { node_id: node.get(), draining: !options.cancel, groups_left: left };
    fact(options.client.output, &drained, Drained::text)?;
    let is_late =
        !options.cancel && !drained.groups_left.is_empty() && !options.within.duration().is_zero();
    if is_late {
        return Err(Failure::new(
            Exit::Unavailable,
            "the node still has replicas; the drain continues, and waits as long as a group has no other node that is up",
        ));
    }
    Ok(())
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
