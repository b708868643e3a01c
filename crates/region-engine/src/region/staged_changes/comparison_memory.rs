//! Memory of a comparison: one lease for both of its sides.
//!
//! With a lease for each, comparisons could wait for each other: every one has the memory of its first side and waits
//! for that of its second.

use crate::EngineError;
use crate::read::memory::{BudgetName, BudgetScope, MemoryUse};
use crate::read::memory::{ByteBudget, ByteLease, Excess, NestedBudgets, ScanAccount, ScanMemory};
use crate::read::scan::FIRST_WAIT;

/// Least bytes of a side: batches of wide rows.
const LEAST_BYTES: u64 = 6 << 20;
/// Least bytes of each source of a side: a file that is read a few rows at a time.
const SOURCE_BYTES: u64 = 64 << 10;
/// Factor from the least bytes to those of full speed.
const FULL_SPEED: u64 = 4;

/// Memory of both sides of a comparison.
#[derive(Debug)]
pub(super) struct ComparisonMemory {
    /// Account of the scan of the region.
    pub(super) region: ScanAccount,
    /// Account of the scan of the staged files.
    pub(super) staged: ScanAccount,
    /// Charged while the comparison runs.
    pub(super) lease: ByteLease,
}

impl ComparisonMemory {
    /// Waits for memory. `region`, `staged`: numbers of sources of each side.
    ///
    /// # Errors
    /// [`EngineError::ScanMemory`] and [`EngineError::ScanTooLarge`].
    pub(super) async fn lease(
        memory: &ScanMemory,
        region: usize,
        staged: usize,
    ) -> Result<Self, EngineError> {
        let budgets = NestedBudgets::new([memory.sources().clone()]);
        let need = |sources: usize| LEAST_BYTES + SOURCE_BYTES * sources as u64;
        let least = (need(region) + need(staged)).min(budgets.limit());
        let lease = budgets.lease(least, least.saturating_mul(FULL_SPEED), FIRST_WAIT).await?;
        let region_bytes = part_of(lease.bytes(), need(region), need(region) + need(staged));
        // Shared: one of the sides would otherwise wait for the excess of the other.
        let excess = Excess::new(budgets);
        let account = |bytes: u64| {
            let name = BudgetName { scope: BudgetScope::Node, memory_use: MemoryUse::Sources };
            ScanAccount {
                sources: NestedBudgets::new([ByteBudget::new(bytes, name)]),
                excess: excess.clone(),
                ..ScanAccount::default()
            }
        };
        let staged = account(lease.bytes().saturating_sub(region_bytes));
        Ok(Self { region: account(region_bytes), staged, lease })
    }
}

/// Returns `bytes * part / whole`; `part` is less than `whole`.
fn part_of(bytes: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(product).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_share_one_lease() {
        let memory = ScanMemory::new(256 << 20);
        let held = ComparisonMemory::lease(&memory, 2, 30).await.unwrap();
        let used = memory.sources().used();
        assert_eq!(used, held.lease.bytes());
        let limits = [&held.region, &held.staged].map(|account| account.sources.limit());
        assert!(limits[0] >= LEAST_BYTES && limits[1] > limits[0], "{limits:?}");
        assert!(limits.iter().sum::<u64>() <= used + 8_192, "{limits:?} of {used}");
        drop(held);
        assert_eq!(memory.sources().used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn comparison_fails_without_memory() {
        let memory = ScanMemory::new(16 << 20);
        let held = ComparisonMemory::lease(&memory, 1, 1).await.unwrap();
        let error = ComparisonMemory::lease(&memory, 1, 1).await.unwrap_err();
        assert!(matches!(error, EngineError::ScanMemory { .. }), "{error}");
        drop(held);
        ComparisonMemory::lease(&memory, 1_000, 1_000).await.unwrap();
    }
}
