//! A leader that others cannot reach, and answers that are lost.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan};
use tidewater_cluster_tests::direct::Direct;
use tidewater_cluster_tests::oracle::{Outcome, Verdict};
use tidewater_cluster_tests::proxy::{Party, Rule};
use tidewater_cluster_tests::workload::{Load, Workload, Writer, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, conclude, manifest_is_in_order};

const SOON: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_leader_with_clients_only_is_of_no_harm() -> Result<()> {
    let cluster = Plan::default().proxied().start().await?;
    cluster.create_log_table().await?;
    let rows = Load::default().rows.unsigned_abs();
    let load = Workload::start(&cluster, Load::default()).await?;
    let (old, region) = (cluster.owner(LOG_TABLE).await?, cluster.region(LOG_TABLE).await?);
    let alone = Direct::to(cluster.data[old].spec.listen, SOON)?;
    alone.count(region).await.map_err(HarnessError::refused("count at the leader"))?;

    let name = cluster.data[old].spec.name.clone();
    cluster.rules.change(|table| table.part(&name, &cluster.names(), Rule::Hold));
    for round in 0..12 {
        let known = load.acknowledged() * rows;
        if let Ok(seen) = alone.count(region).await
            && seen < known
        {
            return Err(HarnessError::violated(format!(
                "round {round}: the old leader counted {seen} rows of {known} acknowledged"
            )));
        }
        if alone.open_producer(region).await.is_ok() {
            return Err(HarnessError::violated(format!(
                "round {round}: a leader without followers acknowledged a write"
            )));
        }
    }
    cluster.owner_other_than(LOG_TABLE, Some(old)).await?;
    load.progress(40).await?;
    // The new owner's flush fences the manifest; nothing of the old one may follow.
    cluster.flush(LOG_TABLE).await?.ok()?;
    if alone.flush(region).await.is_ok() {
        return Err(HarnessError::violated("the old owner flushed after the new owner's fence"));
    }
    load.progress(20).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;

    cluster.rules.heal();
    cluster.healthy().await?;
    manifest_is_in_order(&cluster, LOG_TABLE).await?;
    conclude(cluster, load).await?;
    Ok(())
}

/// How the group gets another owner while the writer waits for its answer.
#[derive(Clone, Copy)]
enum Handover {
    Kill,
    Transfer,
}

async fn lost_answer(how: Handover) -> Result<()> {
    let mut cluster = Plan::default().proxied().start().await?;
    cluster.create_log_table().await?;
    let writer = Writer::connect(options(&cluster), LOG_TABLE, 1).await?;
    let mut attempts = vec![writer.write(1, 3, 10).await?];
    let (old, region) = (cluster.owner(LOG_TABLE).await?, cluster.region(LOG_TABLE).await?);
    let party = Party::node(cluster.data[old].spec.name.clone());
    cluster.rules.change(|table| table.set(Party::Client, party, Rule::LoseAnswers));

    let waiting = tokio::spawn(async move { writer.write(4, 3, 10).await });
    let owner = Direct::to(cluster.data[old].spec.listen, SOON)?;
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
    match how {
        Handover::Kill => cluster.data[old].kill().await?,
        Handover::Transfer => {
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
async fn a_retry_at_another_owner_after_a_kill_takes_effect_once() -> Result<()> {
    lost_answer(Handover::Kill).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_at_another_owner_after_a_transfer_takes_effect_once() -> Result<()> {
    lost_answer(Handover::Transfer).await
}
