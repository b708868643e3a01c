//! Exports of refreshable tables: a step for each publication.

use serde_json::json;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::ClusterPlan;

use super::replay::{expect_replay, prefix};
use super::{create, frontier_from, last_epoch};
use crate::commands::check;
use crate::refreshes::mirror::{Mirror, TABLE};
use crate::support::wait_for_level;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_has_each_publication_of_its_table() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    let mut mirror = Mirror::create(&cluster, 2).await?;
    mirror.rows = (0..1_000).map(|id| (id, "first".to_owned())).collect();
    mirror.write(1)?;
    mirror.refresh(&cluster, json!({"inserted": 1_000})).await?;
    let url = format!("file://{}", prefix(&cluster).display());
    let early = ["export", "create", "early", "--table", TABLE, "--to", &url, "--as-of", "1"];
    let refused = cluster.run(&early).await?;
    refused.status(2)?.expect_stderr(&["begins at its published epoch"])?;
    create(&cluster, TABLE).await?;
    let published = last_epoch(&cluster).await? - 1;
    frontier_from(&cluster, published).await?;
    let contents = expect_replay(&cluster, TABLE, "id").await?;
    check(&format!("{contents:?}"), (contents.rows, contents.steps) == (1_000, 1))?;

    mirror.rows.retain(|id, _| id % 10 != 0);
    for id in 500..600 {
        mirror.rows.insert(id, "second".to_owned());
    }
    mirror.write(1)?;
    mirror.refresh(&cluster, json!({"inserted": 0, "deleted": 90, "updated": 100})).await?;
    let published = last_epoch(&cluster).await? - 1;
    frontier_from(&cluster, published).await?;
    let changed = expect_replay(&cluster, TABLE, "id").await?;
    let found = (changed.rows, changed.steps, changed.deletes);
    check(&format!("{changed:?}"), found == (910, 2, 90))?;
    cluster.finish().await
}
