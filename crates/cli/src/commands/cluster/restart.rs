//! `cluster restart`: a rolling restart, one node after the other.

mod order;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tidewater_client::Client;
use tidewater_proto::v1::{self, NodeRole, NodeState};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use self::order::{RestartedNode, restart_order};
use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output::fact;
use crate::text::time_span::TimeSpan;

/// Time for which the cluster must be healthy after a restart: longer than the time after which a node without heartbeats
/// is down, so that the new process has reported its replicas.
const STABLE_FOR: Duration = Duration::from_secs(6);
/// Interval between looks at the cluster.
const POLL: Duration = Duration::from_millis(500);

/// Options of `cluster restart`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater cluster restart --command 'ssh \"${TIDEWATER_ADDRESS%:*}\" systemctl restart \
                  tidewater-$TIDEWATER_ROLE'\n\nThe command is run by `sh -c` for each node, with TIDEWATER_NODE_ID, \
                  TIDEWATER_ADDRESS and TIDEWATER_ROLE (meta, data, compactor), and must return when the node was stopped and \
                  started. The next node follows when this one has restarted and the cluster is healthy. Meta nodes come first, their leader last, \
                  then data nodes, then compactors, as for an upgrade. After a failure no further node is restarted."
)]
pub(crate) struct Options {
    /// Shell command that restarts one node
    #[arg(long, value_name = "COMMAND", required_unless_present = "dry_run")]
    command: Option<String>,

    /// Restart only nodes of this role: meta, data, compactor
    #[arg(long, value_name = "ROLE", value_parser = ["meta", "data", "compactor"])]
    role: Option<String>,

    /// Print the nodes in the order of their restart, and restart none
    #[arg(long)]
    dry_run: bool,

    /// Longest time until a node has restarted and the cluster is healthy
    #[arg(long, value_name = "TIME", default_value = "5m")]
    within: TimeSpan,

    #[command(flatten)]
    client: ClientArgs,
}

/// Result of a rolling restart. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Restarted {
    nodes: Vec<RestartedNode>,
    dry_run: bool,
}

/// Restarts the nodes of a cluster, one after the other.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let leader = client.cluster_status().await?.leader;
    let nodes: Vec<v1::Node> = client.catalog().nodes().cloned().collect();
    let mut order = restart_order(&nodes, leader);
    order.retain(|node| options.role.as_deref().is_none_or(|role| node.role == role));
    let mut restarted = Restarted { nodes: Vec::new(), dry_run: options.dry_run };
    let count = order.len();
    for (number, node) in (1..).zip(order) {
        if options.dry_run {
            restarted.nodes.push(node);
            continue;
        }
        eprintln!("[{number}/{count}] {} node {} at {}", node.role, node.node_id, node.address);
        // Also before the first restart: a cluster with a problem may lose its majority.
        wait_until_ready(&client, &options, None).await?;
        let command = options.command.as_deref().unwrap_or_default();
        let position = restart(&client, &node, command).await?;
        wait_until_ready(&client, &options, Some((&node, &position))).await?;
        restarted.nodes.push(node);
    }
    fact(options.client.output, &restarted, |restarted| {
        let listed = restarted.nodes.iter().map(|node| format!("{} {}", node.role, node.node_id));
        let listed: Vec<String> = listed.collect();
        let verb = if restarted.dry_run { "would restart" } else { "restarted" };
        format!("{verb} {} nodes: {}", listed.len(), listed.join(", "))
    })
}

async fn run_command(command: &str, node: &RestartedNode) -> Result<(), Failure> {
    let id = node.node_id.to_string();
    let variables = BTreeMap::from([
        ("TIDEWATER_NODE_ID", id.as_str()),
        ("TIDEWATER_ADDRESS", &node.address),
        ("TIDEWATER_ROLE", node.role),
    ]);
    let failed = |problem: String| {
        let text = format!(
            "the command for {} node {} {problem}; no further node is restarted",
            node.role, node.node_id
        );
        Failure::new(Exit::Other, text)
    };
    let mut shell = Command::new("sh");
    // stdout is for the result.
    shell.args(["-c", command]).envs(variables).stdin(Stdio::null()).stdout(std::io::stderr());
    let ended = shell.status().await;
    let status = ended.map_err(|error| failed(format!("cannot be run: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("failed: {status}"))) }
}

/// Position before or after a restart, which the new process of the node passes.
#[derive(Debug)]
struct RestartPosition {
    /// Number of a data node's start before the restart.
    boot: u64,
    /// Entry of the meta group's log from after the restart.
    log: u64,
}

/// Runs the command for a node.
async fn restart(
    client: &Client,
    node: &RestartedNode,
    command: &str,
) -> Result<RestartPosition, Failure> {
    let catalog = client.catalog();
    let known = catalog.nodes().find(|known| known.node_id == node.node_id);
    let boot = known.map_or(0, |known| known.boot);
    run_command(command, node).await?;
    let log = match node.node_role() {
        NodeRole::Meta => client.bench_command(Bytes::new()).await?.get(),
        _ => 0,
    };
    Ok(RestartPosition { boot, log })
}

/// Waits until the cluster is healthy and a node has restarted.
async fn wait_until_ready(
    client: &Client,
    options: &Options,
    restarted: Option<(&RestartedNode, &RestartPosition)>,
) -> Result<(), Failure> {
    let until = Instant::now() + options.within.duration();
    let stable_for = if restarted.is_some() { STABLE_FOR } else { Duration::ZERO };
    let mut ready_since: Option<Instant> = None;
    let mut missing;
    loop {
        let found =
            missing_for(client, restarted).await.unwrap_or_else(|failure| Some(failure.message));
        match found {
            None => {
                let since = *ready_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= stable_for {
                    return Ok(());
                }
                missing =
                    format!("the cluster has not been healthy for {} s", stable_for.as_secs());
            }
            Some(found) => {
                ready_since = None;
                missing = found;
            }
        }
        if Instant::now() >= until {
            break;
        }
        sleep(POLL).await;
    }
    let text = format!("not within {}: {missing}; no further node is restarted", options.within);
    Err(Failure::new(Exit::Unavailable, text))
}

/// Returns what is missing until the next node can be restarted.
async fn missing_for(
    client: &Client,
    restarted: Option<(&RestartedNode, &RestartPosition)>,
) -> Result<Option<String>, Failure> {
    if let Some((node, position)) = restarted
        && !has_restarted(client, node, position).await?
    {
        return Ok(Some(format!("{} node {} has not restarted", node.role, node.node_id)));
    }
    let status = client.cluster_status().await?;
    Ok((!status.healthy)
        .then(|| format!("the cluster has problems: {}", status.problems.join("; "))))
}

async fn has_restarted(
    client: &Client,
    node: &RestartedNode,
    position: &RestartPosition,
) -> Result<bool, Failure> {
    let catalog = client.catalog();
    let is_up = |known: &&v1::Node| known.state() == NodeState::Up && known.address == node.address;
    let mut up = catalog.nodes().filter(is_up);
    Ok(match node.node_role() {
        // Each start of a compactor has an id of its own.
        NodeRole::Compactor => {
            up.any(|known| known.role() == NodeRole::Compactor && known.node_id != node.node_id)
        }
        NodeRole::Meta => {
            let members = client.meta_members().await?.members;
            let member = members.iter().find(|member| member.node_id == node.node_id);
            member.is_some_and(|member| {
                member.leader || member.matched_index.is_some_and(|index| index >= position.log)
            })
        }
        _ => up.any(|known| known.node_id == node.node_id && known.boot > position.boot),
    })
}
