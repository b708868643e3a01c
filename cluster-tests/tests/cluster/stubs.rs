//! A real meta group with stub data nodes and watchers: more of them than real processes fit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tidewater_client::admin::{NewColumn, NewTable};
use tidewater_client::{Client, ClientOptions};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::stub::{MetaCalls, StubCluster, StubWatchers, raise_limit};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::{CatalogSnapshot, NodeRole, NodeState};
use tokio::time::Instant;

use crate::support::SETTLED_WITHIN;

const NODES: usize = 30;
const TABLES: usize = 100;
const WATCHERS: usize = 50;
/// Tables that are created at the same time.
const CREATING: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_meta_leader_serves_all_nodes_and_watchers() -> Result<()> {
    let mut cluster = start_meta_nodes().await?;
    let metas = cluster.meta_addresses();
    let mut stubs = StubCluster::new(metas.clone());
    stubs.add_nodes(NODES, SETTLED_WITHIN).await?;
    stubs.wait_until_led(NODES, SETTLED_WITHIN).await?;
    let watchers = StubWatchers::start(&metas, WATCHERS, SETTLED_WITHIN).await?;
    let client = connect(&cluster).await?;

    let created = AtomicUsize::new(0);
    let creations = async {
        stream::iter(0..TABLES)
            .map(async |number| {
                let result = client.create_table(table(number)).await;
                created.fetch_add(1, Ordering::SeqCst);
                result.err().map(|error| error.to_string())
            })
            .buffer_unordered(CREATING)
            .filter_map(std::future::ready)
            .collect::<Vec<_>>()
            .await
    };
    let kill = async {
        wait::until("half of the tables are created", SETTLED_WITHIN, || async {
            let created = created.load(Ordering::SeqCst);
            if created >= TABLES / 2 { Ok(()) } else { Err(format!("{created} are")) }
        })
        .await?;
        let leader = cluster.meta_leader().await?.0;
        Result::<_>::Ok(leader)
    };
    let mut creations = Box::pin(creations);
    let leader = tokio::select! {
        failed = &mut creations => panic!("all tables were created at once: {failed:?}"),
        leader = kill => leader?,
    };
    let killed = Instant::now();
    cluster.meta[leader].kill().await?;
    let failed = creations.await;
    assert_eq!(failed, [""; 0], "tables that could not be created");

    watchers.wait_until_reconnected(killed, SETTLED_WITHIN).await?;
    let calls = MetaCalls::new(&metas);
    let revision = calls.revision().await?;
    stubs.wait_until_served(Instant::now(), revision, SETTLED_WITHIN).await?;
    wait::until("the watchers have the leader's revision", SETTLED_WITHIN, || async {
        let revision = calls.revision().await.map_err(|error| error.to_string())?;
        watchers.expect_revision(revision).map_err(|error| error.to_string())
    })
    .await?;
    assert_eq!(watchers.counters().gaps.load(Ordering::Relaxed), 0);
    assert_eq!(stubs.world().regions(), TABLES);
    cluster.meta[leader].start().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stub_nodes_fail_and_return_like_data_nodes() -> Result<()> {
    let cluster = start_meta_nodes().await?;
    let metas = cluster.meta_addresses();
    let mut stubs = StubCluster::new(metas.clone());
    stubs.add_nodes(6, SETTLED_WITHIN).await?;
    stubs.wait_until_led(6, SETTLED_WITHIN).await?;
    let calls = MetaCalls::new(&metas);
    stubs.kill([0]);
    stubs.freeze([3]);
    let down = [stubs.nodes[0].id().get(), stubs.nodes[3].id().get()];
    wait_for_catalog(&calls, "two nodes are down and lead nothing", |catalog| {
        let leads = |group: &&tidewater_proto::v1::Group| down.contains(&group.leader);
        down_nodes(catalog) == down && !catalog.groups.iter().any(|group| leads(&group))
    })
    .await?;
    let delay = Duration::from_millis(100);
    stubs.world().set_delay(delay);
    let begun = Instant::now();
    calls.create_table("t", 6).await?;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    stubs.world().set_delay(Duration::ZERO);
    stubs.thaw();
    stubs.restart_dead().await?;
    wait_for_catalog(&calls, "all nodes are up", |catalog| down_nodes(catalog).is_empty()).await?;
    let revision = calls.revision().await?;
    stubs.wait_until_served(Instant::now(), revision, SETTLED_WITHIN).await?;
    assert_eq!(stubs.world().regions(), 6);
    cluster.finish().await
}

async fn start_meta_nodes() -> Result<Cluster> {
    raise_limit().await?;
    let mut cluster = ClusterPlan::default().nodes(3, 0, 0).prepare().await?;
    cluster.start_all().await?;
    Ok(cluster)
}

/// Connects a client whose operations outlast a failover on a busy machine.
async fn connect(cluster: &Cluster) -> Result<Client> {
    let options = ClientOptions { deadline: Duration::from_secs(120), ..options(cluster) };
    let connected = Client::connect(options).await;
    connected.map_err(|error| HarnessError::violated(error.to_string()))
}

fn table(number: usize) -> NewTable {
    let columns = vec![NewColumn::new("id", "int64", false)];
    NewTable { regions: 1, ..NewTable::upsert(&format!("t{number}"), columns, &["id"]) }
}

async fn wait_for_catalog(
    calls: &MetaCalls,
    what: &str,
    is_met: impl Fn(&CatalogSnapshot) -> bool,
) -> Result<()> {
    wait::until(what, SETTLED_WITHIN, || async {
        let catalog = calls.catalog().await.map_err(|error| error.to_string())?;
        if is_met(&catalog) { Ok(()) } else { Err(format!("{:?}", catalog.groups)) }
    })
    .await
}

/// Ids of the data nodes that are down, in ascending order.
fn down_nodes(catalog: &CatalogSnapshot) -> Vec<u64> {
    let data = catalog.nodes.iter().filter(|node| node.role() == NodeRole::Data);
    data.filter(|node| node.state() == NodeState::Down).map(|node| node.node_id).collect()
}
