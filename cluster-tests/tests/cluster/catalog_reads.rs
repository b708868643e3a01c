//! Many clients of a table that is altered: they receive the change on their watches, and do not read the
//! catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidewater_client::Client;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::oracle::{Attempt, Outcome};
use tidewater_cluster_tests::workload::{Writer, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{SETTLED_WITHIN, wait_for_level, wait_until_replicas_agree};

const CLIENTS: usize = 40;
const WRITERS: usize = 200;
const REGIONS: u32 = 8;
const ALTERS: usize = 4;
/// Pause of a writer after each write: the machine need not be saturated.
const PAUSE: Duration = Duration::from_millis(100);

/// State shared with all writers.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// Writes one row at a time until the test stops.
async fn write(client: Client, number: i64, progress: Arc<Progress>) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    let writer = Writer::of_client(&client, LOG_TABLE, number).await?;
    for serial in 0.. {
        if progress.stop.load(Ordering::SeqCst) {
            break;
        }
        let attempt = writer.write(serial, 1, 20).await?;
        if attempt.outcome == Outcome::Acknowledged {
            progress.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        attempts.push(attempt);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(attempts)
}

async fn wait_for_writes(progress: &Progress) -> Result<()> {
    let goal = progress.acknowledged.load(Ordering::SeqCst) + 2 * WRITERS as u64;
    wait::until("every writer writes again", SETTLED_WITHIN, || async {
        let now = progress.acknowledged.load(Ordering::SeqCst);
        if now >= goal { Ok(()) } else { Err(format!("{now} of {goal} writes")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_follow_alters_without_reading_the_whole_catalog() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table_with_regions(REGIONS).await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let connected = Client::connect(options(&cluster)).await;
        clients.push(connected.map_err(|error| HarnessError::violated(error.to_string()))?);
    }
    let progress = Arc::new(Progress::default());
    let mut writers = JoinSet::new();
    for (number, client) in (1..).zip(clients.iter().cycle().take(WRITERS)) {
        writers.spawn(write(client.clone(), number, progress.clone()));
    }
    wait_for_writes(&progress).await?;
    let begun = Instant::now();
    for number in 0..ALTERS {
        if number == ALTERS / 2 {
            // Without waits on the watch, each refused write would read the catalog several times.
            let changes: u64 = clients.iter().map(|client| client.catalog_reads().changes).sum();
            println!("{changes} reads of changes by {CLIENTS} clients in {number} alters");
            // A client reads once in a second in which its watch is silent.
            let silent_seconds = begun.elapsed().as_secs() + number as u64;
            let most = CLIENTS as u64 * silent_seconds;
            assert!(changes <= most, "{changes} reads of changes, at most {most}");
            // All watches break, and resume from their revisions.
            let leader = cluster.meta_leader().await?.0;
            cluster.meta[leader].kill().await?;
            cluster.meta[leader].start().await?;
        }
        let column = format!("added_{number} int64");
        cluster.run(&["table", "alter", LOG_TABLE, "--add-column", &column]).await?.ok()?;
        wait_for_writes(&progress).await?;
    }
    progress.stop.store(true, Ordering::SeqCst);
    let mut attempts = Vec::new();
    while let Some(ended) = writers.join_next().await {
        attempts.extend(ended.map_err(|error| HarnessError::violated(error.to_string()))??);
    }
    let waits: u64 = clients.iter().map(|client| client.catalog_reads().waits).sum();
    println!("{} writes, {waits} waits for an alter", attempts.len());
    // A region serves the version before, too: a write is refused only when its client lacks two alters.
    assert!(waits <= attempts.len() as u64 / 10, "{waits} of {} writes waited", attempts.len());
    for reads in clients.iter().map(Client::catalog_reads) {
        assert_eq!(reads.snapshots, 1, "{reads:?}: a client read the whole catalog again");
    }
    let verdict = cluster.verify(&attempts).await?;
    println!("{verdict}");
    wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await
}
