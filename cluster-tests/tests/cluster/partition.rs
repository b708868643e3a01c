//! Network partitions around a leader, and lost answers.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::direct::NodeClient;
use tidewater_cluster_tests::oracle::{Outcome, Verdict};
use tidewater_cluster_tests::proxy::{Party, Rule};
use tidewater_cluster_tests::workload::{LoadOptions, Workload, Writer, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, conclude, expect_fenced_manifest};

const DEADLINE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_leader_serves_no_stale_read_or_write() -> Result<()> {
    let cluster = ClusterPlan::default().proxied().start().await?;
    cluster.create_log_table().await?;
    let rows = LoadOptions::default().rows.unsigned_abs();
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let old = cluster.owner(LOG_TABLE).await?;
    let region = cluster.region(LOG_TABLE).await?;
    let old_leader = NodeClient::new(cluster.data[old].spec.listen, DEADLINE)?;
    old_leader.count(region).await.map_err(HarnessError::refused("count at the leader"))?;

    let name = cluster.data[old].spec.name.clone();
    cluster.rules.change(|table| table.isolate(&name, &cluster.names(), Rule::Hold));
    for round in 0..12 {
        let known = load.acknowledged() * rows;
        if let Ok(seen) = old_leader.count(region).await
            && seen < known
        {
            return Err(HarnessError::violated(format!(
                "round {round}: the old leader counted {seen} rows of {known} acknowledged"
            )));
        }
        if old_leader.open_producer(region).await.is_ok() {
            return Err(HarnessError::violated(format!(
                "round {round}: a leader without followers acknowledged a write"
            )));
        }
    }
    cluster.owner_other_than(LOG_TABLE, Some(old)).await?;
    load.progress(40).await?;
    // The flush of the new owner fences the manifest: no commit of the old owner may follow.
    cluster.flush(LOG_TABLE).await?.ok()?;
    if old_leader.flush(region).await.is_ok() {
        return Err(HarnessError::violated("the old owner flushed after the new owner's fence"));
    }
    load.progress(20).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;

    cluster.rules.heal();
    cluster.wait_until_healthy().await?;
    expect_fenced_manifest(&cluster, LOG_TABLE).await?;
    conclude(cluster, load).await?;
    Ok(())
}

/// Cause of the change of the owner while the writer waits for an answer.
#[derive(Clone, Copy)]
enum OwnerChange {
    Kill,
    Transfer,
}

async fn lose_answer_during(change: OwnerChange) -> Result<()> {
    let mut cluster = ClusterPlan::default().proxied().start().await?;
    cluster.create_log_table().await?;
    let writer = Writer::connect(options(&cluster), LOG_TABLE, 1).await?;
    let mut attempts = vec![writer.write(1, 3, 10).await?];
    let old = cluster.owner(LOG_TABLE).await?;
    let region = cluster.region(LOG_TABLE).await?;
    let party = Party::node(cluster.data[old].spec.name.clone());
    cluster.rules.change(|table| table.set(Party::Client, party, Rule::LoseAnswers));

    let waiting = tokio::spawn(async move { writer.write(4, 3, 10).await });
    let owner = NodeClient::new(cluster.data[old].spec.listen, DEADLINE)?;
    wait::until("the write has taken effect", SETTLED_WITHIN, || async {
        match owner.count(region).await {
            Ok(6) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    if waiting.is_finished() {
        return Err(HarnessError::violated("the answer was not lost"));
    }
    match change {
        OwnerChange::Kill => cluster.data[old].kill().await?,
        OwnerChange::Transfer => {
            let to = (old + 1) % cluster.data.len();
            let to = cluster.node_id(&cluster.data[to].spec).await?.to_string();
            let group = region.group_id.to_string();
            cluster.run(&["group", "transfer-leader", &group, "--to", &to]).await?.ok()?;
        }
    }
    cluster.owner_other_than(LOG_TABLE, Some(old)).await?;
    let attempt = waiting.await.map_err(|error| HarnessError::violated(error.to_string()))??;
    if attempt.outcome != Outcome::Acknowledged {
        return Err(HarnessError::violated(format!("the retry ended with {attempt:?}")));
    }
    attempts.push(attempt);
    cluster.rules.heal();
    let verdict: Verdict = cluster.verify(&attempts).await?;
    println!("{verdict}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_at_new_owner_after_kill_takes_effect_once() -> Result<()> {
    lose_answer_during(OwnerChange::Kill).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_at_new_owner_after_transfer_takes_effect_once() -> Result<()> {
    lose_answer_during(OwnerChange::Transfer).await
}
