//! An object store that is down, lies, or does not keep its promises.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan, Store};
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use crate::support::{conclude, flushed_once, manifest_is_in_order};

const DOWN: Duration = Duration::from_secs(20);
const LIMIT_MIB: u64 = 192;
/// Pages of an unoptimised binary, which are mapped and not allocated.
const BESIDES_MIB: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_is_down_stops_no_write() -> Result<()> {
    let plan = Plan::default().store(Store::S3).memory_limit(&format!("{LIMIT_MIB}MiB"));
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load = Load { rest: Duration::from_millis(400), ..Load::heavy() };
    let load = Workload::start(&cluster, load).await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    let s3 = cluster.s3.as_ref().expect("planned");

    s3.fault(Fault::of(Mode::Down)).await?;
    let until = Instant::now() + DOWN;
    // Asked while it is down; done when it is back.
    let flush = cluster.flush(LOG_TABLE);
    let going_on = async {
        let mut peak = 0;
        while Instant::now() < until {
            load.progress(4).await?;
            peak = peak.max(cluster.data[owner].resident_mib());
        }
        s3.heal().await?;
        Ok::<_, HarnessError>(peak)
    };
    let (_, peak) = tokio::join!(flush, going_on);
    let peak = peak?;
    println!("peak of the owner's memory: {peak} MiB");
    if peak > LIMIT_MIB + BESIDES_MIB {
        return Err(HarnessError::violated(format!("the owner used {peak} MiB")));
    }
    wait::until("a flush succeeds again", Duration::from_secs(60), || async {
        let said = cluster.flush(LOG_TABLE).await.and_then(|said| said.ok());
        said.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    conclude(cluster, load).await?;
    Ok(())
}

/// Each fault strikes some puts of manifests and of data files while flushes go on.
async fn faults_during_flushes(mode: Mode) -> Result<()> {
    let cluster = Plan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let s3 = cluster.s3.as_ref().expect("planned");
    for path in ["manifest", "data", "manifest"] {
        load.progress(20).await?;
        s3.fault(Fault::of(mode).on_puts().on_path(path).times(2)).await?;
        wait::until("a flush succeeds", Duration::from_secs(60), || async {
            let said = cluster.flush(LOG_TABLE).await.and_then(|said| said.ok());
            said.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        if s3.hits().await? == 0 {
            return Err(HarnessError::violated(format!("no put of {path} was struck")));
        }
        s3.heal().await?;
    }
    let attempts = load.stop().await?;
    flushed_once(&cluster, LOG_TABLE).await?;
    manifest_is_in_order(&cluster, LOG_TABLE).await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_answers_500_after_storing_gets_nothing_twice() -> Result<()> {
    faults_during_flushes(Mode::ErrorAfter).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_answers_409_without_storing_loses_nothing() -> Result<()> {
    faults_during_flushes(Mode::Conflict).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_closes_connections_after_storing_gets_nothing_twice() -> Result<()> {
    faults_during_flushes(Mode::CloseAfter).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_ignores_conditional_puts_is_refused_at_start() -> Result<()> {
    let mut cluster = Plan::default().nodes(1, 1, 0).store(Store::S3).prepare().await?;
    let s3 = cluster.s3.as_ref().expect("planned");
    s3.fault(Fault::of(Mode::Unconditional)).await?;
    cluster.meta[0].start().await?;
    cluster.data[0].spawn()?;
    let status = cluster.data[0].ended(Duration::from_secs(60)).await?;
    let said = cluster.data[0].log().text()?.to_lowercase();
    if status.success() || !said.contains("put if absent") {
        return Err(HarnessError::violated(format!("it ended with {status} and said: {said}")));
    }
    cluster.finish().await
}
