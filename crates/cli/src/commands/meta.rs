//! `meta`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tidewater_common::clock::SystemClock;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_meta_node::{BarrierOptions, Bootstrap, Meta, MetaOptions};
use tidewater_raft_store::RaftService;

use crate::exit::Failure;
use crate::server::events::EventArgs;
use crate::server::join::ClockArgs;
use crate::server::listen::Listen;
use crate::server::logs::LogOptions;
use crate::server::node::RunningNode;
use crate::server::process::Process;
use crate::server::start_errors;
use crate::text::peer::Peer;
use crate::text::time_span::TimeSpan;

/// Options of `meta`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater meta --node-id 1 --listen 127.0.0.1:7401 --data-dir m1 \
                        --peers 1=127.0.0.1:7401,2=127.0.0.1:7402,3=127.0.0.1:7403 \
                        --bootstrap\n\nStart all meta nodes of a new cluster with the same --peers, and \
                        exactly one of them with --bootstrap, once."
)]
pub(crate) struct Options {
    /// Id of this node in --peers, from 1
    #[arg(long, env = "TIDEWATER_NODE_ID", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) node_id: u64,

    #[command(flatten)]
    pub(crate) listen: Listen,

    /// Directory of the Raft log and the catalog
    #[arg(long, env = "TIDEWATER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,

    /// Addresses of all meta nodes: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(
        long,
        env = "TIDEWATER_PEERS",
        value_name = "ID=ADDR",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) peers: Vec<Peer>,

    /// Create a new cluster of these peers
    #[arg(long, env = "TIDEWATER_BOOTSTRAP")]
    pub(crate) bootstrap: bool,

    /// Time a data node may be unreachable before its replicas move to other nodes; use the same
    /// value on all meta nodes
    #[arg(long, env = "TIDEWATER_REPLACE_AFTER", value_name = "TIME", default_value = "10m")]
    pub(crate) replace_after: TimeSpan,

    /// Number of groups for each data node; use the same value on all meta nodes
    #[arg(long, env = "TIDEWATER_GROUPS_PER_NODE", value_name = "N",
          default_value_t = MetaOptions::GROUPS_PER_NODE as u32,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) groups_per_node: u32,

    /// Maximum number of data nodes in the catalog, including those that are down; use the same value on
    /// all meta nodes
    #[arg(long, env = "TIDEWATER_MAX_DATA_NODES", value_name = "N",
          default_value_t = MetaOptions::MAX_DATA_NODES as u32,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_data_nodes: u32,

    /// Interval between garbage collection passes
    #[arg(long, env = "TIDEWATER_GC_EVERY", value_name = "TIME", default_value = "1h")]
    pub(crate) gc_every: TimeSpan,

    /// Grace period before unreferenced objects are deleted; longer scans may fail
    #[arg(long, env = "TIDEWATER_GC_GRACE", value_name = "TIME", default_value = "6h")]
    pub(crate) gc_grace: TimeSpan,

    /// Retention of manifest versions that durable hooks have not received yet; at most 6d
    #[arg(long, env = "TIDEWATER_HOOK_RETENTION", value_name = "TIME", default_value = "3d")]
    pub(crate) hook_retention: TimeSpan,

    /// Maximum lag of a durable hook, in versions of a region, before it restarts with a snapshot
    #[arg(
        long,
        env = "TIDEWATER_HOOK_RETENTION_VERSIONS",
        value_name = "N",
        default_value_t = 10_000
    )]
    pub(crate) hook_retention_versions: u64,

    /// Time between two barriers, 100ms to 1m: each begins an epoch, which reads can name with --as-of; use the same value
    /// on all meta nodes
    #[arg(long, env = "TIDEWATER_BARRIER_INTERVAL", value_name = "TIME", default_value = "1s")]
    pub(crate) barrier_interval: TimeSpan,

    /// Time for which the rows of an epoch can be read after its end, at most 7d; 0s: only the newest rows can be read; use
    /// the same value on all meta nodes
    #[arg(long, env = "TIDEWATER_HISTORY", value_name = "TIME", default_value = "0s")]
    pub(crate) history: TimeSpan,

    /// Hold back feature levels above this one while this node is a member: after an upgrade, all nodes can
    /// still return to the earlier release. Without effect on a level that the cluster has reached
    /// [default: no limit]
    #[arg(long, env = "TIDEWATER_MAX_FEATURE_LEVEL", value_name = "LEVEL",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_feature_level: Option<u32>,

    /// Interval in which the meta leader writes the tables collection_statistics and collection_progress; 0s: never
    #[arg(long, env = "TIDEWATER_STATISTICS_EVERY", value_name = "TIME", default_value = "1m")]
    pub(crate) statistics_every: TimeSpan,

    #[command(flatten)]
    pub(crate) clock: ClockArgs,

    #[command(flatten)]
    pub(crate) events: EventArgs,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs a meta node until a signal stops it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let peers = peers(&options.peers)?;
    let mut listen = options.listen;
    if listen.exposure.advertise.is_none() {
        // The list of peers already contains the address that other nodes connect to.
        listen.exposure.advertise = peers.get(&NodeId(options.node_id)).cloned();
    }
    let mut process = Process::start(&listen, &options.logs).await?;
    // This node first: it answers also after all others were replaced.
    let mut addresses = vec![process.bound().to_string()];
    addresses.extend(peers.values().cloned());
    let data_dir = Some(&*options.data_dir);
    let events = process.record_events(&options.events, data_dir, &addresses).await?;
    let bootstrap = if options.bootstrap { Bootstrap::Once } else { Bootstrap::Never };
    let settings = MetaOptions {
        replace_after: options.replace_after.duration(),
        groups_per_node: options.groups_per_node as usize,
        max_data_nodes: options.max_data_nodes as usize,
        max_clock_difference: options.clock.max_clock_difference.duration(),
        max_level: options.max_feature_level.map(FeatureLevel::new),
        gc_every: options.gc_every.duration(),
        gc_grace: options.gc_grace.duration(),
        hook_retention: options.hook_retention.duration(),
        hook_retention_versions: options.hook_retention_versions,
        barriers: BarrierOptions {
            interval: options.barrier_interval.duration(),
            history: options.history.duration(),
        },
        problems: process.problems(),
        events,
        ..MetaOptions::new(NodeId(options.node_id), options.data_dir, peers, bootstrap)
    };
    let raft = process.raft();
    process.add(start_meta(settings, raft)).await?;
    process.keep_system_tables(options.statistics_every.duration(), addresses);
    process.run("meta").await
}

/// Starts a meta node, alone in its process or with other nodes.
pub(crate) async fn start_meta(
    options: MetaOptions,
    raft: RaftService,
) -> Result<RunningNode, Failure> {
    Meta::start(options, raft, Arc::new(SystemClock))
        .await
        .map(|node| RunningNode::Meta(Box::new(node)))
        .map_err(|error| start_errors::meta_failure(&error))
}

fn peers(list: &[Peer]) -> Result<BTreeMap<NodeId, String>, Failure> {
    let mut peers = BTreeMap::new();
    for peer in list {
        if peers.insert(NodeId(peer.node_id), peer.address.clone()).is_some() {
            return Err(Failure::usage(format!("--peers contains node {} twice", peer.node_id)));
        }
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_peer_is_rejected() {
        let list: Vec<Peer> =
            ["1=a:1", "2=b:1", "1=c:1"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(peers(&list[..2]).unwrap().len(), 2);
        assert!(peers(&list).unwrap_err().message.contains("node 1 twice"));
    }
}
