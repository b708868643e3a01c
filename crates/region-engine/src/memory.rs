//! Memory for rows that are not flushed yet: one budget for all regions of a process.
//!
//! At the limit writers stall until flushes have made room; at twice the limit they are refused.
//! What stalled writers hold in their hands is memory, too: beyond a quarter of the limit they are
//! refused at once.
//! Rows that the log has accepted are always counted and never refused: only admission waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewater_common::ids::RegionId;
use tokio::sync::Notify;

use crate::EngineError;

/// What writers must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Below the limit.
    None,
    /// At or above the limit: writers wait, the largest memtables are flushed.
    Stall,
    /// At or above twice the limit: writers are refused.
    Reject,
}

/// Hint to writers that were refused: about the time that one flush takes.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// See the module's head.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
    admitted: AtomicU64,
    waiting: AtomicU64,
    released: Notify,
}

/// Bytes of a write on its way through the log; given back on drop, which must come after the write
/// is applied (or has failed).
#[must_use = "dropping an admission gives its bytes back"]
#[derive(Debug)]
pub struct Admission {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

/// Bytes of a write that waits; given back on drop.
#[derive(Debug)]
struct Place<'a> {
    budget: &'a MemoryBudget,
    bytes: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The bytes of one region's memtable within the budget; given back on drop.
#[derive(Debug)]
pub(crate) struct Usage {
    budget: Arc<MemoryBudget>,
    bytes: AtomicU64,
}

impl MemoryBudget {
    /// `limit` in bytes; at least 1.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            used: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            released: Notify::new(),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of unflushed rows, without those still on their way through the log.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What writers must do now.
    pub fn pressure(&self) -> Pressure {
        pressure(self.used().saturating_add(self.admitted.load(Ordering::Relaxed)), self.limit)
    }

    /// Bytes above the limit: what flushes should free.
    pub fn excess(&self) -> u64 {
        self.used().saturating_sub(self.limit)
    }

    /// Asks for room for a write of so many bytes, waiting up to `patience` at the limit.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] at twice the limit, when too much waits already, or when there
    /// was no room in time. Nothing was written.
    pub async fn admit(
        self: &Arc<Self>,
        bytes: u64,
        patience: Duration,
    ) -> Result<Admission, EngineError> {
        let waited = tokio::time::timeout(patience, async {
            let mut place = None;
            loop {
                // Registered before the look, so that no release in between is missed.
                let released = self.released.notified();
                match self.pressure() {
                    Pressure::None => return true,
                    Pressure::Reject => return false,
                    Pressure::Stall => {
                        if place.is_none() {
                            place = self.queue(bytes);
                        }
                        if place.is_none() {
                            return false;
                        }
                        released.await;
                    }
                }
            }
        })
        .await;
        if waited != Ok(true) {
            return Err(EngineError::Overloaded {
                used: self.used(),
                limit: self.limit,
                retry_after: RETRY_AFTER,
            });
        }
        self.admitted.fetch_add(bytes, Ordering::Relaxed);
        Ok(Admission { budget: self.clone(), bytes })
    }

    /// A place among those that wait; `None` when they hold too much already.
    fn queue(&self, bytes: u64) -> Option<Place<'_>> {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { budget: self, bytes };
        // Somebody may always wait, however large the write.
        (before == 0 || before.saturating_add(bytes) <= self.limit / 4).then_some(place)
    }

    pub(crate) fn usage(self: &Arc<Self>) -> Usage {
        Usage { budget: self.clone(), bytes: AtomicU64::new(0) }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.budget.admitted.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.released.notify_waiters();
    }
}

impl Usage {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.budget.used.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(before - bytes, Ordering::Relaxed);
            self.budget.released.notify_waiters();
        }
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn pressure(used: u64, limit: u64) -> Pressure {
    if used < limit {
        Pressure::None
    } else if used < limit.saturating_mul(2) {
        Pressure::Stall
    } else {
        Pressure::Reject
    }
}

/// Which regions to flush to free `excess` bytes: the largest first, no more than needed, none
/// that is empty. Equal sizes go by id, so that the choice is the same wherever it is made.
pub fn largest_first(usages: &[(RegionId, u64)], excess: u64) -> Vec<RegionId> {
    let mut sorted: Vec<_> = usages.iter().filter(|(_, bytes)| *bytes > 0).collect();
    sorted.sort_by_key(|(region, bytes)| (std::cmp::Reverse(*bytes), *region));
    let mut freed = 0_u64;
    let mut chosen = Vec::new();
    for (region, bytes) in sorted {
        if freed >= excess {
            break;
        }
        freed = freed.saturating_add(*bytes);
        chosen.push(*region);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_go_first_and_no_more_than_needed() {
        let usages = [(RegionId(1), 10), (RegionId(2), 30), (RegionId(3), 0), (RegionId(4), 30)];
        assert_eq!(largest_first(&usages, 0), vec![]);
        assert_eq!(largest_first(&usages, 1), vec![RegionId(2)]);
        assert_eq!(largest_first(&usages, 31), vec![RegionId(2), RegionId(4)]);
        assert_eq!(largest_first(&usages, 1_000), vec![RegionId(2), RegionId(4), RegionId(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn writers_stall_at_the_limit_and_go_on_when_a_flush_made_room() {
        let budget = MemoryBudget::new(100);
        let usage = budget.usage();
        usage.set(100);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit(1, Duration::from_secs(5)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        usage.set(99);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn writers_are_refused_in_the_end_and_at_once_at_twice_the_limit() {
        let budget = MemoryBudget::new(100);
        let usage = budget.usage();
        usage.set(150);
        let late = budget.admit(1, Duration::from_secs(5)).await;
        assert!(matches!(late, Err(EngineError::Overloaded { used: 150, limit: 100, .. })));
        usage.set(200);
        let start = tokio::time::Instant::now();
        assert!(budget.admit(1, Duration::from_secs(5)).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_too() {
        let budget = MemoryBudget::new(100);
        let usage = budget.usage();
        usage.set(100);
        let wait = |bytes| {
            let budget = budget.clone();
            tokio::spawn(async move { budget.admit(bytes, Duration::from_secs(5)).await.map(drop) })
        };
        let waiting = [wait(20), wait(5)];
        tokio::task::yield_now().await;
        let start = tokio::time::Instant::now();
        assert!(wait(1).await.unwrap().is_err());
        assert_eq!(start.elapsed(), Duration::ZERO, "at once");
        usage.set(0);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        // The places are free again, and one write may be larger than all of them.
        usage.set(100);
        let large = wait(1_000);
        tokio::task::yield_now().await;
        assert!(!large.is_finished());
        usage.set(0);
        large.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn admitted_bytes_count_until_they_are_dropped_and_regions_until_they_are() {
        let budget = MemoryBudget::new(100);
        let admission = budget.admit(200, Duration::ZERO).await.unwrap();
        assert_eq!(budget.pressure(), Pressure::Reject);
        drop(admission);
        assert_eq!(budget.pressure(), Pressure::None);
        let usage = budget.usage();
        usage.set(100);
        assert_eq!(budget.pressure(), Pressure::Stall);
        drop(usage);
        assert_eq!((budget.used(), budget.pressure()), (0, Pressure::None));
    }
}
