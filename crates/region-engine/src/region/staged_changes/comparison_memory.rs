//! Memory of a comparison: one lease for both of its sides.
//!
//! With a lease for each, comparisons could wait for each other: every one has the memory of its first side and waits
//! for that of its second.

use crate::EngineError;
use crate::read::memory::{ByteLease, ComparisonBudget, Excess, NestedBudgets, ScanAccount};
use crate::read::need::ScanNeed;

/// Least bytes of a side: texts may be larger than the size of their files indicates.
const LEAST_BYTES: u64 = 256 << 10;

/// Memory of both sides of a comparison.
#[derive(Debug)]
pub(super) struct ComparisonMemory {
    /// Account of the scan of the region.
    pub(super) region: ScanAccount,
    /// Account of the scan of the staged files.
    pub(super) staged: ScanAccount,
    /// Shared: one of the sides would otherwise wait for the excess of the other.
    excess: Excess,
    /// Charged while the comparison works.
    _lease: ByteLease,
}

impl ComparisonMemory {
    /// Bytes that each side may have, unless it cannot be read with fewer.
    pub(super) fn limit_of_side(budget: &ComparisonBudget) -> u64 {
        budget.share() / 2
    }

    /// Waits for memory, without a limit of time. `needs`: those of the region's and of the staged rows, computed with
    /// [`Self::limit_of_side`].
    ///
    /// # Errors
    /// [`EngineError::ScanTooLarge`].
    pub(super) async fn lease(
        budget: &ComparisonBudget,
        needs: [ScanNeed; 2],
    ) -> Result<Self, EngineError> {
        let [region, staged] = needs.map(|need| ScanNeed {
            least: need.least.max(LEAST_BYTES),
            want: need.want.max(need.least).max(LEAST_BYTES),
        });
        let least = region.least.saturating_add(staged.least);
        let want = region.want.saturating_add(staged.want);
        let lease = budget.lease(want.min(budget.share()).max(least)).await?;
        // Each side has its least bytes, and the same part of what it wants in addition.
        let more = part_of(lease.bytes() - least, region.want - region.least, want - least);
        let region_bytes = region.least + more;
        let excess = budget.excess();
        let account = |bytes: u64| ScanAccount {
            sources: NestedBudgets::granted(bytes),
            excess: excess.clone(),
            ..ScanAccount::default()
        };
        let staged = account(lease.bytes() - region_bytes);
        Ok(Self { region: account(region_bytes), staged, excess, _lease: lease })
    }

    /// Returns whether the comparison holds memory above its lease, which keeps others from theirs.
    pub(super) fn has_excess(&self) -> bool {
        self.excess.is_held()
    }
}

/// Returns `bytes * part / whole`; `part` is at most `whole`.
fn part_of(bytes: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(product).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::memory::ScanMemory;

    const MIB: u64 = 1 << 20;

    fn need(least: u64, want: u64) -> ScanNeed {
        ScanNeed { least: least * MIB, want: want * MIB }
    }

    #[tokio::test]
    async fn sides_get_parts_of_the_lease_by_their_needs() {
        let memory = ScanMemory::new(128 * MIB);
        let budget = memory.comparisons();
        let cases = [
            // All that both want.
            ([need(1, 4), need(2, 6)], [4, 6]),
            // A share of 24 MiB.
            ([need(2, 40), need(2, 40)], [12, 12]),
            ([need(2, 12), need(4, 44)], [6, 19]),
            // Wide rows need more than the share, and more than the budget.
            ([need(20, 40), need(30, 40)], [20, 30]),
        ];
        for (needs, expected) in cases {
            let held = ComparisonMemory::lease(budget, needs).await.unwrap();
            let limits = [&held.region, &held.staged].map(|account| account.sources.limit());
            assert_eq!(limits.map(|bytes| bytes.div_ceil(MIB)), expected, "{needs:?}");
            let sum: u64 = limits.iter().sum();
            assert_eq!(budget.used(), sum.min(32 * MIB), "{needs:?}");
            drop(held);
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn comparison_without_rows_holds_little() {
        let memory = ScanMemory::new(128 * MIB);
        let needs = [ScanNeed::default(); 2];
        let held = ComparisonMemory::lease(memory.comparisons(), needs).await.unwrap();
        assert_eq!(memory.comparisons().used(), 2 * LEAST_BYTES);
        assert!(!held.has_excess());
    }

    #[tokio::test]
    async fn far_too_wide_rows_are_refused() {
        let memory = ScanMemory::new(64 * MIB);
        let needs = [need(100, 100); 2];
        let refused = ComparisonMemory::lease(memory.comparisons(), needs).await.unwrap_err();
        assert!(matches!(refused, EngineError::ScanTooLarge { .. }), "{refused}");
    }
}
