//! Memory budget for unflushed rows, shared by all regions of a process.
//!
//! At the limit, writes stall until flushes have freed memory. At twice the limit, writes are rejected.
//! Stalled writes occupy memory too: a write that would raise their total above a quarter of the limit
//! is rejected immediately. Rows that the log has accepted are always counted and never rejected: only
//! admission waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewater_common::ids::RegionId;
use tokio::sync::Notify;

use crate::EngineError;

/// Memory pressure on writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Below the limit.
    None,
    /// At or above the limit: writes wait, the largest memtables are flushed.
    Stall,
    /// At or above twice the limit: writes are rejected.
    Reject,
}

/// Retry hint of rejected writes: the approximate duration of a flush.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Memory budget for the unflushed rows of a process, in bytes.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
    admitted: AtomicU64,
    stalled: AtomicU64,
    released: Notify,
}

/// Reservation of the bytes of a write that passes through the log. Released on drop, which must happen
/// after the write was applied or has failed.
#[must_use = "dropping an admission releases its bytes"]
#[derive(Debug)]
pub struct Admission {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

/// Bytes of a stalled write; released on drop.
#[derive(Debug)]
struct StalledWrite<'a> {
    budget: &'a MemoryBudget,
    bytes: u64,
}

impl Drop for StalledWrite<'_> {
    fn drop(&mut self) {
        self.budget.stalled.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of rows in memory, charged to the budget; released on drop.
#[must_use = "dropping a charge releases its bytes"]
#[derive(Debug)]
pub(crate) struct RowsCharge {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl MemoryBudget {
    /// Creates a budget of `limit` bytes, at least 1.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            used: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            released: Notify::new(),
        })
    }

    /// Limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of unflushed rows, without admitted writes that are not applied yet.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Current memory pressure on writes.
    pub fn pressure(&self) -> Pressure {
        pressure(self.used().saturating_add(self.admitted.load(Ordering::Relaxed)), self.limit)
    }

    /// Bytes above the limit, which flushes should free.
    pub fn excess(&self) -> u64 {
        self.used().saturating_sub(self.limit)
    }

    /// Reserves memory for a write of `bytes`. At the limit, waits for up to `timeout`.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] at twice the limit, if the stalled writes already exceed their share,
    /// or if no memory was freed within the timeout. Nothing was written.
    pub async fn admit(
        self: &Arc<Self>,
        bytes: u64,
        timeout: Duration,
    ) -> Result<Admission, EngineError> {
        let admitted = tokio::time::timeout(timeout, async {
            let mut stalled = None;
            loop {
                // Registered before the check, so that no release in between is missed.
                let released = self.released.notified();
                match self.pressure() {
                    Pressure::None => return true,
                    Pressure::Reject => return false,
                    Pressure::Stall => {
                        if stalled.is_none() {
                            stalled = self.stall(bytes);
                        }
                        if stalled.is_none() {
                            return false;
                        }
                        released.await;
                    }
                }
            }
        })
        .await;
        if admitted != Ok(true) {
            return Err(EngineError::Overloaded {
                used: self.used(),
                limit: self.limit,
                retry_after: RETRY_AFTER,
            });
        }
        self.admitted.fetch_add(bytes, Ordering::Relaxed);
        Ok(Admission { budget: self.clone(), bytes })
    }

    /// Counts a write as stalled; `None` if the stalled writes would exceed their share.
    fn stall(&self, bytes: u64) -> Option<StalledWrite<'_>> {
        let before = self.stalled.fetch_add(bytes, Ordering::Relaxed);
        let write = StalledWrite { budget: self, bytes };
        // The first write may always wait, regardless of its size.
        (before == 0 || before.saturating_add(bytes) <= self.limit / 4).then_some(write)
    }

    /// Charges rows that the log has accepted; never fails.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> RowsCharge {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        RowsCharge { budget: self.clone(), bytes }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.budget.admitted.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.released.notify_waiters();
    }
}

impl Drop for RowsCharge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.released.notify_waiters();
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

/// Chooses the regions to flush to free `excess` bytes: the largest first, no more than needed, no empty
/// ones. Equal sizes are ordered by id, so that the choice is deterministic.
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
    fn largest_first_frees_no_more_than_needed() {
        let usages = [(RegionId(1), 10), (RegionId(2), 30), (RegionId(3), 0), (RegionId(4), 30)];
        assert_eq!(largest_first(&usages, 0), vec![]);
        assert_eq!(largest_first(&usages, 1), vec![RegionId(2)]);
        assert_eq!(largest_first(&usages, 31), vec![RegionId(2), RegionId(4)]);
        assert_eq!(largest_first(&usages, 1_000), vec![RegionId(2), RegionId(4), RegionId(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn writers_stall_at_limit_until_memory_is_freed() {
        let budget = MemoryBudget::new(100);
        let rows = budget.charge(100);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit(1, Duration::from_secs(5)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(rows);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn admission_is_rejected_after_timeout_and_at_twice_limit() {
        let budget = MemoryBudget::new(100);
        let _rows = budget.charge(150);
        let late = budget.admit(1, Duration::from_secs(5)).await;
        assert!(matches!(late, Err(EngineError::Overloaded { used: 150, limit: 100, .. })));
        let _more = budget.charge(50);
        let start = tokio::time::Instant::now();
        assert!(budget.admit(1, Duration::from_secs(5)).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_writes_are_bounded() {
        let budget = MemoryBudget::new(100);
        let rows = budget.charge(100);
        let wait = |bytes| {
            let budget = budget.clone();
            tokio::spawn(async move { budget.admit(bytes, Duration::from_secs(5)).await.map(drop) })
        };
        let stalled = [wait(20), wait(5)];
        tokio::task::yield_now().await;
        let start = tokio::time::Instant::now();
        assert!(wait(1).await.unwrap().is_err());
        assert_eq!(start.elapsed(), Duration::ZERO, "immediately");
        drop(rows);
        for write in stalled {
            write.await.unwrap().unwrap();
        }
        // The share is free again, and a single write may exceed it.
        let rows = budget.charge(100);
        let large = wait(1_000);
        tokio::task::yield_now().await;
        assert!(!large.is_finished());
        drop(rows);
        large.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn admission_and_charge_release_bytes_on_drop() {
        let budget = MemoryBudget::new(100);
        let admission = budget.admit(200, Duration::ZERO).await.unwrap();
        assert_eq!(budget.pressure(), Pressure::Reject);
        drop(admission);
        assert_eq!(budget.pressure(), Pressure::None);
        let rows = budget.charge(100);
        assert_eq!((budget.used(), budget.pressure()), (100, Pressure::Stall));
        drop(rows);
        assert_eq!((budget.used(), budget.pressure()), (0, Pressure::None));
    }
}
