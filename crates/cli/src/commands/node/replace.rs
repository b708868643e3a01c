//! `node replace N --by M`

use clap::Args;
use serde::Serialize;
use tidewater_client::ClientError;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use super::drain::{BegunDrain, late};
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::time_span::TimeSpan;

/// Options of `node replace`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater node replace 102 --by 105\n\nThe new node must have joined. The old one may be down. Reads \
                  and writes continue. An interrupted command does not end the replacement: run it again, or take it back \
                  with `tidewater node drain 102 --cancel`."
)]
pub(crate) struct Options {
    /// Id of the data node to replace
    node: u64,

    /// Id of the data node that gets its replicas
    #[arg(long, value_name = "M")]
    by: u64,

    /// Longest time to wait until the node is empty; 0s: return at once
    #[arg(long, value_name = "TIME", default_value = "30m")]
    within: TimeSpan,

    #[command(flatten)]
    client: ClientArgs,
}

/// Result of a replacement. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Replaced {
    node_id: u64,
    by: u64,
    removed: bool,
    /// Groups with a replica on the node.
    groups_left: Vec<u64>,
}

impl Replaced {
    fn text(&self) -> String {
        let Self { node_id, by, removed, groups_left } = self;
        if *removed {
            format!("node {node_id} is replaced by node {by} and removed")
        } else {
            format!("node {by} is replacing node {node_id}; replicas left: {}", groups_left.len())
        }
    }
}

/// Moves the replicas of a node to another one, waits until it has none, and removes it. A repeated command continues.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let (node, by) = (NodeId(options.node), NodeId(options.by));
    let until = Instant::now() + options.within.duration();
    let left = loop {
        let groups = match client.replace_node(node, by).await {
            // An earlier attempt has removed it.
            Err(error) if reason(&error) == Some(Reason::NodeAlreadyRemoved) => break Vec::new(),
            groups => groups?,
        };
        let begun = BegunDrain { client: &client, node, replacement: Some(by) };
        let left = begun.follow(&groups, until).await?;
        if !left.is_empty() {
            break left;
        }
        match client.remove_node(node).await {
            Err(error) if reason(&error) == Some(Reason::NodeAlreadyRemoved) => break left,
            // A group was recorded on it after the last look.
            Err(error)
                if reason(&error) == Some(Reason::MembershipBusy) && Instant::now() < until => {}
            removed => break removed.map(|()| left)?,
        }
    };
    let removed = left.is_empty();
    let replaced = Replaced { node_id: node.get(), by: by.get(), removed, groups_left: left };
    fact(options.client.output, &replaced, Replaced::text)?;
    if removed || options.within.duration().is_zero() { Ok(()) } else { Err(late()) }
}

fn reason(error: &ClientError) -> Option<Reason> {
    error.refusal().map(|refusal| refusal.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacement_has_stable_json_fields() {
        let replaced = Replaced { node_id: 4, by: 7, removed: false, groups_left: vec![2] };
        assert_eq!(
            serde_json::to_string(&replaced).unwrap(),
            r#"{"node_id":4,"by":7,"removed":false,"groups_left":[2]}"#
        );
        assert_eq!(replaced.text(), "node 7 is replacing node 4; replicas left: 1");
    }
}
