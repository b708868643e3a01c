//! Many [`watcher`](super::watcher)s in one process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::watcher::{Watcher, WatcherCounters, WatcherState};
use crate::{HarnessError, Result, wait};

/// Watchers that connect at the same time.
const CONNECTING: usize = 32;

/// Running watchers. They end when this is dropped.
#[derive(Debug)]
pub struct StubWatchers {
    states: Vec<Arc<WatcherState>>,
    counters: Arc<WatcherCounters>,
    _tasks: JoinSet<()>,
}

/// Times of a set of watchers, from the shortest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachTimes(Vec<Duration>);

impl ReachTimes {
    /// Creates the times, in any order.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// Time of the median watcher; 0 without watchers.
    pub fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    /// Time of the last watcher; 0 without watchers.
    pub fn last(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl StubWatchers {
    /// Starts watchers, and waits until each has its first catalog.
    ///
    /// # Errors
    /// If one has none within `limit`.
    pub async fn start(metas: &[String], count: usize, limit: Duration) -> Result<Self> {
        let counters = Arc::new(WatcherCounters::default());
        let states: Vec<Arc<WatcherState>> = (0..count).map(|_| Arc::default()).collect();
        let connecting = Arc::new(Semaphore::new(CONNECTING));
        let mut tasks = JoinSet::new();
        for (number, state) in states.iter().enumerate() {
            let mut watcher = Watcher::new(metas, number, state.clone(), counters.clone());
            let connecting = connecting.clone();
            tasks.spawn(async move {
                let permit = connecting.acquire_owned().await;
                watcher.connect().await;
                drop(permit);
                watcher.run().await;
            });
        }
        let watchers = Self { states, counters, _tasks: tasks };
        watchers.wait_until_at(1, limit).await?;
        Ok(watchers)
    }

    /// Number of watchers.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Returns true if there are no watchers.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Counters over all watchers.
    pub fn counters(&self) -> &WatcherCounters {
        &self.counters
    }

    /// Revisions of all watchers.
    pub fn revisions(&self) -> Vec<u64> {
        self.states.iter().map(|state| state.revision()).collect()
    }

    /// Waits until all watchers have a revision or a later one.
    ///
    /// # Errors
    /// On a timeout, with the number of watchers that do not have it.
    pub async fn wait_until_at(&self, revision: u64, limit: Duration) -> Result<()> {
        wait::until(&format!("all watchers are at revision {revision}"), limit, || async {
            let behind = self.states.iter().filter(|state| state.revision() < revision).count();
            if behind == 0 { Ok(()) } else { Err(format!("{behind} of {} are not", self.len())) }
        })
        .await
    }

    /// Times from `since` to the revision. Waits for all watchers.
    ///
    /// # Errors
    /// As [`wait_until_at`](Self::wait_until_at).
    pub async fn times_to(
        &self,
        revision: u64,
        since: Instant,
        limit: Duration,
    ) -> Result<ReachTimes> {
        self.wait_until_at(revision, limit).await?;
        let reached = self.states.iter().filter_map(|state| state.reached(revision));
        let times = reached.map(|at| at.saturating_duration_since(since)).collect();
        Ok(ReachTimes::new(times))
    }

    /// Waits until each watcher has received an event of a stream that began after `since`, as after the
    /// death of the meta leader. Returns the times from `since` to those events.
    ///
    /// # Errors
    /// On a timeout, with the number of watchers that have not.
    pub async fn wait_until_reconnected(
        &self,
        since: Instant,
        limit: Duration,
    ) -> Result<ReachTimes> {
        wait::until("all watchers are connected again", limit, || async {
            let connected = self.states.iter().filter_map(|state| state.connected());
            let times: Vec<Duration> =
                connected.filter_map(|at| at.checked_duration_since(since)).collect();
            match self.len() - times.len() {
                0 => Ok(ReachTimes::new(times)),
                waiting => Err(format!("{waiting} of {} are not", self.len())),
            }
        })
        .await
    }

    /// Checks that the revisions of all watchers equal `revision`.
    ///
    /// # Errors
    /// [`HarnessError::Violated`] with another revision.
    pub fn expect_revision(&self, revision: u64) -> Result<()> {
        match self.revisions().into_iter().find(|known| *known != revision) {
            None => Ok(()),
            Some(other) => Err(HarnessError::violated(format!(
                "a watcher is at revision {other}, the leader at {revision}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_median_and_a_last() {
        let times = [30, 10, 20].map(Duration::from_millis).to_vec();
        let times = ReachTimes::new(times);
        assert_eq!(times.median(), Duration::from_millis(20));
        assert_eq!(times.last(), Duration::from_millis(30));
        assert_eq!(ReachTimes::new(Vec::new()).last(), Duration::ZERO);
    }
}
