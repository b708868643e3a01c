//! Collections by their ids: allocated, created in batches, listed and dropped, while meta leaders are killed.

use tidewater_client::admin::{NewColumn, NewTable};
use tidewater_client::{Client, ClientError};
use tidewater_cluster_tests::cluster::ClusterPlan;
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::ids::TableId;
use tidewater_proto::v1::{DataSource, Reason};

use crate::support::wait_for_level;

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

fn definition(name: &str) -> NewTable {
    let columns = vec![NewColumn::new("k", "int64", false), NewColumn::new("v", "utf8", true)];
    NewTable { regions: 1, ..NewTable::upsert(name, columns, &["k"]) }
}

/// Names of the collections that clients write, by id.
async fn ingested(client: &Client) -> Result<Vec<String>> {
    let found = client.active_collections().await.map_err(failed)?;
    let ingested = found.into_iter().filter(|of| of.data_source() == DataSource::Ingestion);
    Ok(ingested.map(|of| of.name).collect())
}

fn expect_reason<T: std::fmt::Debug>(
    outcome: std::result::Result<T, ClientError>,
    expected: Reason,
) -> Result<()> {
    match outcome {
        Err(error) if error.refusal().is_some_and(|of| of.reason == expected) => Ok(()),
        other => Err(HarnessError::violated(format!("{other:?} instead of {expected:?}"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_collections_are_created_whole() -> Result<()> {
    let mut cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let ids: Vec<TableId> = client.allocate_ids(4).await.map_err(failed)?.map(TableId).collect();
    let batch = || vec![(ids[1], definition("b")), (ids[0], definition("a"))];
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    let created = client.create_collections(batch()).await.map_err(failed)?;
    let named: Vec<&str> = created.iter().map(|table| table.name.as_str()).collect();
    if named != ["b", "a"] || created[0].table_id != ids[1].get() {
        return Err(HarnessError::violated(format!("{created:?}")));
    }
    cluster.meta[leader].start().await?;
    // The answer was lost, and the batch is sent again.
    client.create_collections(batch()).await.map_err(failed)?;
    let load = cluster.directory().join("a.csv");
    std::fs::write(&load, "k,v\n1,x\n2,y\n").map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", "a", &load.display().to_string()]).await?.ok()?;
    if cluster.count("a").await? != 2 {
        return Err(HarnessError::violated("the collection has other rows"));
    }

    let next = TableId(ids[3].get() + 1);
    for (bad, reason) in [
        ((next, definition("c")), Reason::IdentifierMissing),
        ((ids[0], definition("other")), Reason::IdentifierReused),
        ((ids[3], definition("a")), Reason::TableExists),
        ((ids[3], NewTable { columns: Vec::new(), ..definition("c") }), Reason::InvalidArgument),
    ] {
        let batch = vec![(ids[2], definition("good")), bad];
        expect_reason(client.create_collections(batch).await, reason)?;
    }
    if ingested(&client).await? != ["a", "b"] {
        return Err(HarnessError::violated("a refused batch has created a collection"));
    }
    expect_reason(client.drop_collections(&[ids[0], next]).await, Reason::IdentifierMissing)?;
    cluster.run(&["hold", "acquire", "h", "b"]).await?.ok()?;
    // The third id is not used.
    let dropped = client.drop_collections(&ids[..3]).await.map_err(failed)?;
    let kept: Vec<bool> = dropped.iter().map(|of| of.kept.is_some()).collect();
    if kept != [false, true, false] {
        return Err(HarnessError::violated(format!("{dropped:?}")));
    }
    let repeated = client.drop_collections(&ids[..3]).await.map_err(failed)?;
    if repeated != dropped {
        return Err(HarnessError::violated(format!("{repeated:?} instead of {dropped:?}")));
    }
    for id in [ids[0], ids[2]] {
        let again = client.create_collections(vec![(id, definition("a"))]).await;
        expect_reason(again, Reason::IdentifierInvalid)?;
    }
    let found = client.active_collections().await.map_err(failed)?;
    if found.len() != 1 || found[0].dropped_name != "b" {
        return Err(HarnessError::violated(format!("{found:?}")));
    }
    cluster.run(&["hold", "release", "h"]).await?.ok()?;
    cluster.finish().await
}
