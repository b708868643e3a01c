//! Data nodes that hang: the tables of other groups are not delayed.

use std::time::Duration;

use futures::future::join_all;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::{CatalogSnapshot, TableState};
use tokio::time::Instant;

use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_level};

/// Tables that are dropped.
const TABLES: usize = 40;
/// Fewest drops that hang: more than the meta leader has permits of any kind. A table without a route in a group that
/// hangs is dropped at once.
const HANGING: usize = 33;
/// Commands at a time, on a busy machine.
const AT_A_TIME: usize = 8;
/// Deadline of the meta leader's calls to data nodes: a table that waits for a call that hangs takes longer.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

async fn create(cluster: &Cluster, name: &str, regions: &str) -> Result<()> {
    let columns = ["--columns", "id int64, name utf8", "--primary-key", "id"];
    let place = ["--distribute", "hash(id)", "--regions", regions];
    let args = [&["table", "create", name], &columns[..], &place[..]].concat();
    cluster.run(&args).await?.ok()?;
    Ok(())
}

/// Returns the numbers of voters of each group on running and on frozen nodes.
async fn voters_by_group(cluster: &Cluster, frozen: &[u64]) -> Result<Vec<(usize, usize)>> {
    let catalog = cluster.catalog().await?;
    let split = |group: &tidewater_proto::v1::Group| {
        let hanging = group.voters.iter().filter(|node| frozen.contains(node)).count();
        (group.voters.len() - hanging, hanging)
    };
    Ok(catalog.groups.iter().map(split).collect())
}

fn dropping(catalog: &CatalogSnapshot) -> usize {
    let state = i32::from(TableState::Dropping);
    catalog.tables.iter().filter(|table| table.state == state).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_groups_do_not_delay_tables_of_others() -> Result<()> {
    let mut cluster = ClusterPlan::default()
        .nodes(1, 6, 0)
        .env("TIDEWATER_GROUPS_PER_NODE", "1")
        .prepare()
        .await?;
    // The groups of the first three nodes have all their replicas on these, and likewise the others.
    let mut late = cluster.data.split_off(3);
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    cluster.data.append(&mut late);
    cluster.start_all().await?;
    wait::until("each node has a group of three", SETTLED_WITHIN, || async {
        let voters = voters_by_group(&cluster, &[]).await.map_err(|error| error.to_string())?;
        if voters.len() == 6 && voters.iter().all(|of| *of == (3, 0)) {
            return Ok(());
        }
        Err(format!("{voters:?}"))
    })
    .await?;
    let mut frozen = Vec::new();
    for node in &cluster.data[3..5] {
        frozen.push(cluster.node_id(&node.spec).await?);
    }
    let voters = voters_by_group(&cluster, &frozen).await?;
    if voters[0] != (3, 0) || !voters.contains(&(1, 2)) {
        return Err(HarnessError::violated(format!("voters on running, frozen nodes: {voters:?}")));
    }

    // A move would lock a table that is to be dropped.
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    let names: Vec<String> = (0..TABLES).map(|number| format!("t{number}")).collect();
    for names in names.chunks(AT_A_TIME) {
        for created in join_all(names.iter().map(|name| create(&cluster, name, "6"))).await {
            created?;
        }
    }
    for node in &cluster.data[3..5] {
        node.signal(Signal::Stop).await?;
    }
    let args: Vec<[&str; 3]> = names.iter().map(|name| ["table", "drop", name.as_str()]).collect();
    let drops = join_all(args.iter().map(|args| cluster.run(args)));
    let others = async {
        wait::until("all drops have begun", SETTLED_WITHIN, || async {
            let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
            let active = i32::from(TableState::Active);
            let left = catalog.tables.iter().filter(|table| table.state == active).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} of {TABLES} are active")) }
        })
        .await?;
        let begun = Instant::now();
        create(&cluster, "healthy", "1").await?;
        let took = begun.elapsed();
        let hanging = dropping(&cluster.catalog().await?);
        println!("created beside {hanging} hanging drops in {} ms", took.as_millis());
        for node in &cluster.data[3..5] {
            node.signal(Signal::Continue).await?;
        }
        if hanging < HANGING || took >= CALL_DEADLINE {
            return Err(HarnessError::violated(format!(
                "a table beside {hanging} hanging drops was created in {} s",
                took.as_secs()
            )));
        }
        Ok(())
    };
    let (_, others) = tokio::join!(drops, others);
    others?;
    // A client may have reached its deadline: the procedures continue.
    wait::until("all tables are dropped", SETTLED_WITHIN, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        if dropping(&catalog) == 0 { Ok(()) } else { Err(format!("{} left", dropping(&catalog))) }
    })
    .await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
