//! Budgets in bytes, and leases of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RETRY_AFTER;
use super::name::{BudgetName, BudgetScope};
use crate::EngineError;
use crate::meters;

/// Granularity of budgets in bytes.
pub(super) const UNIT: u64 = 4_096;

/// A request of this many times a budget is refused. Rows cannot be split: a scan of a few files with
/// very large rows takes all of the budget, and exceeds it.
pub(super) const MAX_EXCESS: u64 = 4;

/// Bytes that leases may hold together.
#[derive(Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    total: u32,
    name: BudgetName,
    /// Turn to hold more than the budget.
    pub(super) excess: Arc<Semaphore>,
}

impl ByteBudget {
    /// Creates a budget of `limit` bytes, rounded up to a multiple of 4,096; at least one of them.
    pub fn new(limit: u64, name: BudgetName) -> Arc<Self> {
        let total = units(limit).min(u32::MAX >> 1);
        let units = Arc::new(Semaphore::new(total as usize));
        Arc::new(Self { units, total, name, excess: Arc::new(Semaphore::new(1)) })
    }

    /// Creates a budget for the same use, for fewer scans.
    pub fn part(&self, limit: u64, scope: BudgetScope) -> Arc<Self> {
        Self::new(limit, BudgetName { scope, ..self.name })
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

    /// Returns the error of a scan that needs more memory at once than it can get.
    pub(super) fn too_large(&self, needed: u64) -> EngineError {
        meters::record_refused_scan();
        EngineError::ScanTooLarge { needed, limit: self.limit(), budget: self.name }
    }

    /// Returns the error of a scan that gets no memory in time.
    pub(super) fn exhausted(&self, needed: u64) -> EngineError {
        meters::record_refused_scan();
        let limit = self.limit();
        EngineError::ScanMemory { needed, limit, budget: self.name, retry_after: RETRY_AFTER }
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
    /// One for each budget.
    permits: Vec<OwnedSemaphorePermit>,
}

impl ByteLease {
    /// Bytes that the holder may use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Releases all but `bytes`.
    fn shrink(&mut self, bytes: u64) {
        self.bytes = self.bytes.min(bytes);
        for permit in &mut self.permits {
            let kept = usize::try_from(units(bytes)).unwrap_or(usize::MAX);
            drop(permit.split(permit.num_permits().saturating_sub(kept)));
        }
    }

    /// Adds a lease of the same budgets.
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (permit, other) in self.permits.iter_mut().zip(other.permits) {
            permit.merge(other);
        }
    }
}

/// Budgets that contain each other, the smallest first. By default there are none, and memory is unlimited.
#[derive(Debug, Clone)]
pub struct NestedBudgets {
    budgets: Arc<[Arc<ByteBudget>]>,
    /// Bytes of a lease if there are no budgets.
    granted: u64,
}

impl Default for NestedBudgets {
    fn default() -> Self {
        Self::granted(u64::MAX)
    }
}

impl NestedBudgets {
    /// Creates nested budgets, the smallest first.
    pub fn new(budgets: impl IntoIterator<Item = Arc<ByteBudget>>) -> Self {
        Self { budgets: budgets.into_iter().collect(), ..Self::default() }
    }

    /// Creates the budgets of a single scan whose memory is charged already. A lease has these bytes, or the least that
    /// it requires if that is more.
    pub(crate) fn granted(bytes: u64) -> Self {
        Self { budgets: Arc::default(), granted: bytes }
    }

    /// Limit of the smallest budget in bytes.
    pub fn limit(&self) -> u64 {
        self.budgets.iter().map(|budget| budget.limit()).min().unwrap_or(self.granted)
    }

    /// The largest budget; `None`: leases are not charged.
    pub(super) fn largest(&self) -> Option<&Arc<ByteBudget>> {
        self.budgets.last()
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
        let Some(largest) = self.largest() else {
            return Ok(ByteLease { bytes: self.granted.max(least), permits: Vec::new() });
        };
        if least > largest.limit().saturating_mul(MAX_EXCESS) {
            return Err(largest.too_large(least));
        }
        let most = want.min(self.limit()).max(least);
        if let Some(lease) = self.try_lease(most.min(self.share().max(least))) {
            return Ok(lease);
        }
        meters::record_waiting_scan();
        match tokio::time::timeout(wait, self.wait_for(least)).await {
            Ok(Some(lease)) => Ok(lease),
            _ => Err(self.full(least).unwrap_or(largest).exhausted(least)),
        }
    }

    /// Like [`Self::lease`], in place of a lease of these budgets. One that suffices is kept, so that a
    /// scan which has begun does not wait behind others; else it is dropped before the wait.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub async fn renew(
        &self,
        held: Option<ByteLease>,
        least: u64,
        want: u64,
        wait: Duration,
    ) -> Result<ByteLease, EngineError> {
        let Some(mut lease) = held.filter(|held| held.bytes >= least) else {
            return self.lease(least, want, wait).await;
        };
        if self.budgets.is_empty() {
            return Ok(lease);
        }
        if lease.bytes > want {
            lease.shrink(want);
        } else {
            let more = (want.min(self.limit()).saturating_sub(lease.bytes)).min(self.share());
            if let Some(more) = (more >= UNIT).then(|| self.try_lease(more)).flatten() {
                lease.add(more);
            }
        }
        Ok(lease)
    }

    /// Returns the smallest budget in which these bytes are not free.
    fn full(&self, bytes: u64) -> Option<&Arc<ByteBudget>> {
        self.budgets
            .iter()
            .find(|budget| budget.units.available_permits() < budget.units_of(bytes) as usize)
    }

    /// Three quarters of the free bytes.
    fn share(&self) -> u64 {
        let free = self.budgets.iter().map(|budget| budget.free()).min().unwrap_or(u64::MAX);
        free - free / 4
    }

    /// Charges these bytes, if they are free.
    pub(super) fn try_lease(&self, bytes: u64) -> Option<ByteLease> {
        let mut permits = Vec::with_capacity(self.budgets.len());
        for budget in self.budgets.iter() {
            let units = budget.units_of(bytes);
            permits.push(budget.units.clone().try_acquire_many_owned(units).ok()?);
        }
        Some(ByteLease { bytes, permits })
    }

    /// Charges these bytes once they are free; `None` if the budgets were closed, which does not happen.
    pub(super) async fn wait_for(&self, bytes: u64) -> Option<ByteLease> {
        let mut permits = Vec::with_capacity(self.budgets.len());
        // The smallest first: a caller that has used up its own budget does not hold that of others.
        for budget in self.budgets.iter() {
            let units = budget.units_of(bytes);
            permits.push(budget.units.clone().acquire_many_owned(units).await.ok()?);
        }
        Some(ByteLease { bytes, permits })
    }
}
