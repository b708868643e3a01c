//! Benchmark: `cargo test --release -p tidewater-raft-store speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints how fast appends are on this machine's disk"]
async fn speed_of_durable_appends() {
    for (groups, writers, bytes) in [(1, 1, 1_024), (8, 64, 1_024), (8, 8, 1024 * 1024)] {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path());
        let started = Instant::now();
        let deadline = started + Duration::from_secs(3);
        let mut tasks = Vec::new();
        for group in 0..groups {
            // Like openraft: one task appends, others wait for the flush.
            let mut log = store.group(GroupId(group));
            let window = writers / groups as usize;
            tasks.push(tokio::spawn(async move {
                let mut pending = std::collections::VecDeque::new();
                for index in 0.. {
                    let (flushed, done) = callback();
                    log.append([entry(1, index, bytes)], flushed).await.unwrap();
                    pending.push_back(done);
                    if pending.len() >= window.max(1)
                        && let Some(done) = pending.pop_front()
                    {
                        done.await.unwrap();
                    }
                    if index % 64 == 63 {
                        log.purge(log_id(1, index - 32)).await.unwrap();
                    }
                    if Instant::now() > deadline {
                        return;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let seconds = started.elapsed().as_secs_f64();
        let stats = store.stats();
        println!(
            "{groups} groups, {writers} in flight, {bytes} bytes: {:.0} entries/s, {:.1} MB/s, \
             {:.1} entries a sync, {:.2} ms a sync",
            stats.entries as f64 / seconds,
            stats.entries as f64 * bytes as f64 / seconds / 1e6,
            stats.entries as f64 / stats.syncs as f64,
            seconds * 1e3 / stats.syncs as f64,
        );
    }
}
