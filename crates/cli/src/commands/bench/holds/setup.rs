//! Calls before and after the measurement.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tidewater_client::{Client, ClientError};
use tidewater_common::ids::Epoch;

use super::Options;
use super::definitions::{hold, name, table};
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;

/// Maximum number of calls in progress.
const CONCURRENT_CALLS: usize = 16;
/// Pause between looks for the next barrier.
const BARRIER_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the next barrier: `meta --barrier-interval` is at most a minute.
const BARRIER_LIMIT: Duration = Duration::from_secs(120);

/// Creates the tables that are missing.
pub(super) async fn create_tables(client: &Client, tables: u64) -> Result<(), Failure> {
    let missing = (0..tables).filter(|number| !is_table(client, *number)).collect();
    for_each("creating", "tables", missing, |number| {
        let client = client.clone();
        async move { client.create_table(table(number)).await }
    })
    .await
}

/// Drops the tables that exist.
pub(super) async fn drop_tables(client: &Client, tables: u64) -> Result<(), Failure> {
    let existing = (0..tables).filter(|number| is_table(client, *number)).collect();
    for_each("dropping", "tables", existing, |number| {
        let client = client.clone();
        async move { client.drop_table(&name(number)).await }
    })
    .await
}

fn is_table(client: &Client, number: u64) -> bool {
    client.catalog().table_named(&name(number)).is_some()
}

/// Acquires the holds that exist during the measurement.
pub(super) async fn acquire_holds(client: &Client, options: &Options) -> Result<(), Failure> {
    let tables = options.tables;
    let acquire = |number| {
        let client = client.clone();
        async move { client.acquire_read_hold(hold(number, tables)).await }
    };
    // The first hold of a table alters it. Another one at the same time would wait for the alteration.
    for_each("holding", "tables", (0..tables).collect(), acquire).await?;
    for_each("acquiring", "holds", (tables..options.holds).collect(), acquire).await
}

/// Releases the holds of the measurement, also those of an earlier run with the same options.
pub(super) async fn release_holds(client: &Client, options: &Options) -> Result<(), Failure> {
    let last = options.holds.saturating_add(options.requests);
    let names: Vec<String> = (0..last).map(name).collect();
    client.release_read_holds(&names).await?;
    Ok(())
}

/// Waits for the next barrier, and returns its epoch: holds that exist now can be moved to it.
pub(super) async fn later_epoch(client: &Client) -> Result<Epoch, Failure> {
    let begun = Instant::now();
    let held = last_barrier(client).await?;
    while begun.elapsed() < BARRIER_LIMIT {
        tokio::time::sleep(BARRIER_PAUSE).await;
        let last = last_barrier(client).await?;
        if last > held {
            return Ok(last);
        }
    }
    let text = format!(
        "the meta leader has sent no barrier for {} s: `tidewater cluster status` shows its problems",
        BARRIER_LIMIT.as_secs()
    );
    Err(Failure::new(Exit::Unavailable, text))
}

/// Returns the epoch of the last barrier; 0: unknown.
async fn last_barrier(client: &Client) -> Result<Epoch, ClientError> {
    let frontiers = client.collection_frontiers(&[name(0)]).await?;
    Ok(frontiers.first().map_or(Epoch(0), |of| Epoch(of.upper)))
}

/// Makes a call for each number, several at a time, and shows the progress. Ends at the first error.
async fn for_each<T, F>(
    activity: &str,
    unit: &'static str,
    numbers: Vec<u64>,
    call: impl Fn(u64) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let total = numbers.len() as u64;
    let mut progress = Progress::counting(activity, unit);
    let mut calls = stream::iter(numbers).map(call).buffer_unordered(CONCURRENT_CALLS);
    let mut done: u64 = 0;
    while let Some(result) = calls.next().await {
        result?;
        done = done.saturating_add(1);
        progress.update(done, (done, total));
    }
    progress.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test]
    async fn calls_are_made_once_within_the_limit() {
        let made = RefCell::new(Vec::new());
        let running = &Cell::new(0_usize);
        let most = &Cell::new(0_usize);
        let call = |number: u64| {
            made.borrow_mut().push(number);
            async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                tokio::task::yield_now().await;
                running.set(running.get() - 1);
                Ok::<_, ClientError>(())
            }
        };
        for_each("making", "calls", (0..100).collect(), call).await.unwrap();
        assert_eq!(made.take(), Vec::from_iter(0..100));
        assert_eq!((running.get(), most.get()), (0, CONCURRENT_CALLS));
    }

    #[tokio::test]
    async fn failed_call_is_reported() {
        let call = |number: u64| async move {
            match number {
                7 => Err(ClientError::TableNotFound("hold_bench_7".to_owned())),
                _ => Ok(()),
            }
        };
        let failure = for_each("making", "calls", (0..100).collect(), call).await.unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.message.contains("hold_bench_7"), "{failure}");
    }
}
