//! `node list`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{self, Listed};

/// Options of `node list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater node list --output json")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// One node. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(crate) struct NodeLine {
    node_id: u64,
    role: &'static str,
    address: String,
    state: &'static str,
    draining: bool,
}

impl From<&v1::Node> for NodeLine {
    fn from(node: &v1::Node) -> Self {
        Self {
            node_id: node.node_id,
            role: match node.role() {
                v1::NodeRole::Unspecified => "unknown",
                v1::NodeRole::Meta => "meta",
                v1::NodeRole::Data => "data",
                v1::NodeRole::Compactor => "compactor",
            },
            address: node.address.clone(),
            state: match node.state() {
                v1::NodeState::Unspecified => "unknown",
                v1::NodeState::Up => "up",
                v1::NodeState::Down => "down",
                v1::NodeState::Removed => "removed",
            },
            draining: node.draining,
        }
    }
}

impl Listed for NodeLine {
    const HEADINGS: &'static [&'static str] = &["NODE", "ROLE", "ADDRESS", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.node_id.to_string(),
            self.role.to_owned(),
            self.address.clone(),
            if self.draining { format!("{}, draining", self.state) } else { self.state.to_owned() },
        ]
    }
}

/// Lists the nodes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let catalog = options.client.connect().await?.catalog();
    let lines: Vec<NodeLine> = catalog.nodes().map(NodeLine::from).collect();
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_has_stable_json_fields() {
        let node = v1::Node {
            node_id: 4,
            role: v1::NodeRole::Data.into(),
            address: "a:1".into(),
            state: v1::NodeState::Up.into(),
            ..v1::Node::default()
        };
        assert_eq!(
            serde_json::to_string(&NodeLine::from(&node)).unwrap(),
            r#"{"node_id":4,"role":"data","address":"a:1","state":"up","draining":false}"#
        );
    }
}
