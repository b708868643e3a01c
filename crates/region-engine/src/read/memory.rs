//! Memory of scans: a budget for the process, and accounts of single scans.
//!
//! - **Budget**: bytes that leases may hold together. Requests are granted in the order of their
//!   arrival.
//! - **Nested budgets**: the process's budget within which a caller has a smaller one, so that a caller
//!   does not take the memory of all others. A lease is charged to each of them.
//! - **Lease**: bytes charged to the budgets until it is dropped.
//! - **Account**: the budgets of one scan: for its *sources* (open files, rows being merged) and for
//!   its *messages* (encoded rows that its reader has yet to take).
//!
//! Sources and messages have separate budgets: a scan waits for memory of a message while it holds
//! memory of its sources. With one budget, scans that hold all of it would wait for each other. The
//! memory of a message becomes free when its reader takes it, which depends on no other lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::EngineError;
use crate::meters;

/// Granularity of budgets in bytes.
const UNIT: u64 = 4_096;

/// Retry hint of a scan without memory: a typical duration of a scan.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A request of this many times a budget is refused. Rows cannot be split: a scan of a few files with
/// very large rows takes all of the budget, and exceeds it.
const MAX_EXCESS: u64 = 4;

/// Bytes that leases may hold together.
#[derive(Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    total: u32,
}

impl ByteBudget {
    /// Creates a budget of `limit` bytes, rounded up to a multiple of 4,096; at least one of them.
    pub fn new(limit: u64) -> Arc<Self> {
        let total = units(limit).min(u32::MAX >> 1);
        Arc::new(Self { units: Arc::new(Semaphore::new(total as usize)), total })
    }

    /// Limit in bytes.
    pub fn limit(&self) -> u64 {
        u64::from(self.total) * UNIT
    }

    /// Bytes held by leases.
    pub fn used(&self) -> u64 {
        self.limit().saturating_sub(self.free())
    }

    fn free(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT
    }

    /// Number of units that a lease of `bytes` takes: at most all.
    fn units_of(&self, bytes: u64) -> u32 {
        units(bytes).min(self.total)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

/// Bytes charged to budgets until this is dropped.
#[must_use = "dropping a lease releases its bytes"]
#[derive(Debug)]
pub struct ByteLease {
    bytes: u64,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl ByteLease {
    /// Bytes that the holder may use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Budgets that contain each other, the smallest first. Without any, memory is unlimited.
#[derive(Debug, Clone, Default)]
pub struct NestedBudgets(Arc<[Arc<ByteBudget>]>);

impl NestedBudgets {
    /// Creates nested budgets, the smallest first.
    pub fn new(budgets: impl IntoIterator<Item = Arc<ByteBudget>>) -> Self {
        Self(budgets.into_iter().collect())
    }

    /// Limit of the smallest budget in bytes.
    pub fn limit(&self) -> u64 {
        self.0.iter().map(|budget| budget.limit()).min().unwrap_or(u64::MAX)
    }

    /// Charges between `least` and `want` bytes: a scan gets at most three quarters of what is free,
    /// unless `least` is more, so that scans which begin later still get a part.
    ///
    /// # Errors
    /// [`EngineError::ScanTooLarge`] if `least` exceeds the largest budget many times, and
    /// [`EngineError::ScanMemory`] if `least` bytes are not free within `wait`.
    pub async fn lease(
        &self,
        least: u64,
        want: u64,
        wait: Duration,
    ) -> Result<ByteLease, EngineError> {
        let Some(largest) = self.0.last() else {
            return Ok(ByteLease { bytes: want.max(least), _permits: Vec::new() });
        };
        let limit = largest.limit();
        if least > limit.saturating_mul(MAX_EXCESS) {
            meters::record_refused_scan();
            return Err(EngineError::ScanTooLarge { needed: least, limit });
        }
        let free = self.0.iter().map(|budget| budget.free()).min().unwrap_or(0);
        let most = want.min(self.limit()).max(least);
        let granted = most.min((free - free / 4).max(least));
        if let Some(lease) = self.try_lease(granted) {
            return Ok(lease);
        }
        meters::record_waiting_scan();
        match tokio::time::timeout(wait, self.wait_for(least)).await {
            Ok(Some(lease)) => Ok(lease),
            _ => {
                meters::record_refused_scan();
                Err(EngineError::ScanMemory { needed: least, limit, retry_after: RETRY_AFTER })
            }
        }
    }

    fn try_lease(&self, bytes: u64) -> Option<ByteLease> {
        let mut permits = Vec::with_capacity(self.0.len());
        for budget in self.0.iter() {
            let units = budget.units_of(bytes);
            permits.push(budget.units.clone().try_acquire_many_owned(units).ok()?);
        }
        Some(ByteLease { bytes, _permits: permits })
    }

    /// `None` if the budgets were closed, which does not happen.
    async fn wait_for(&self, bytes: u64) -> Option<ByteLease> {
        let mut permits = Vec::with_capacity(self.0.len());
        // The smallest first: a caller that has used up its own budget does not hold that of others.
        for budget in self.0.iter() {
            let units = budget.units_of(bytes);
            permits.push(budget.units.clone().acquire_many_owned(units).await.ok()?);
        }
        Some(ByteLease { bytes, _permits: permits })
    }
}

/// Memory budget of all scans of a process.
#[derive(Debug)]
pub struct ScanMemory {
    sources: Arc<ByteBudget>,
    messages: Arc<ByteBudget>,
}

impl ScanMemory {
    /// Creates a budget of `limit` bytes: half for sources, half for messages.
    pub fn new(limit: u64) -> Self {
        Self { sources: ByteBudget::new(limit / 2), messages: ByteBudget::new(limit / 2) }
    }

    /// Budget of sources: open files and rows being merged.
    pub fn sources(&self) -> &Arc<ByteBudget> {
        &self.sources
    }

    /// Budget of messages that readers have yet to take.
    pub fn messages(&self) -> &Arc<ByteBudget> {
        &self.messages
    }

    /// Limit in bytes.
    pub fn limit(&self) -> u64 {
        self.sources.limit() + self.messages.limit()
    }

    /// Bytes held by scans.
    pub fn used(&self) -> u64 {
        self.sources.used() + self.messages.used()
    }

    /// Returns the account of a scan that has no budget of its own within the process's.
    pub fn account(&self) -> ScanAccount {
        ScanAccount::new(
            NestedBudgets::new([self.sources.clone()]),
            NestedBudgets::new([self.messages.clone()]),
        )
    }
}

/// Budgets of one scan. The default is unlimited.
#[derive(Debug, Clone, Default)]
pub struct ScanAccount {
    sources: NestedBudgets,
    messages: NestedBudgets,
}

impl ScanAccount {
    /// Creates an account of these budgets.
    pub fn new(sources: NestedBudgets, messages: NestedBudgets) -> Self {
        Self { sources, messages }
    }

    /// Budgets of open files and of rows being merged.
    pub fn sources(&self) -> &NestedBudgets {
        &self.sources
    }

    /// Budgets of messages.
    pub fn messages(&self) -> &NestedBudgets {
        &self.messages
    }
}

#[cfg(test)]
mod tests;
