//! Memory of scans: budgets for the process, and accounts of single scans.
//!
//! - **Budget**: bytes that leases may hold together. Requests are granted in the order of their
//!   arrival.
//! - **Nested budgets**: the process's budget within which a caller has a smaller one, so that a caller
//!   does not take the memory of all others. A lease is charged to each of them.
//! - **Lease**: bytes charged to the budgets until it is dropped.
//! - **Excess**: bytes above the budgets, which one scan at a time may hold.
//! - **Account**: the budgets of one scan: for its *arguments* (values that rows are compared with),
//!   its *sources* (open files, rows being merged) and its *messages* (encoded rows that its reader
//!   has yet to take).
//! - **Point reads** have a budget of their own, in addition to that of scans: they wait for no scan.
//! - **Comparisons** of regions with staged rows have one, too ([`comparisons`]).
//!
//! A scan waits for each of them while it holds the ones before it, in this order: arguments, the lease
//! of its sources, excess, messages. It does not wait for a budget of which its sources hold a part:
//! scans do not deadlock. The memory of a message becomes free when the reader takes the message, which
//! depends on no lease.

mod budget;
pub(crate) mod comparisons;
mod excess;
mod name;

use std::sync::Arc;
use std::time::Duration;

pub use self::budget::{ByteBudget, ByteLease, NestedBudgets};
pub use self::comparisons::ComparisonBudget;
pub use self::excess::{Excess, ExtraMemory};
pub use self::name::{BudgetName, BudgetScope, MemoryUse};

/// Longest time for which the reader of a scan may take nothing; the scan ends then.
pub const READER_STALLED_AFTER: Duration = Duration::from_secs(60);

/// Longest wait for memory of a scan that has begun. The memory of scans whose readers take nothing
/// becomes free in that time.
pub const BEGUN_WAIT: Duration = READER_STALLED_AFTER.saturating_add(Duration::from_secs(30));

/// Retry hint of a scan beyond a limit: a typical duration of a scan.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Least budget of point reads: a row has at most 16 MiB.
const LEAST_POINT_READS: u64 = 16 << 20;

/// Least budget of comparisons: narrow rows are compared at an acceptable speed.
const LEAST_COMPARISONS: u64 = 16 << 20;

/// Memory budget of all scans of a process, of its point reads and of its comparisons.
#[derive(Debug)]
pub struct ScanMemory {
    comparisons: ComparisonBudget,
    point_reads: Arc<ByteBudget>,
    arguments: Arc<ByteBudget>,
    sources: Arc<ByteBudget>,
    messages: Arc<ByteBudget>,
}

impl ScanMemory {
    /// Creates a budget of `limit` bytes: half for sources, three eighths for messages, an eighth for
    /// arguments. Point reads have a quarter in addition, and at least 16 MiB; comparisons likewise.
    pub fn new(limit: u64) -> Self {
        let name = |memory_use| BudgetName { scope: BudgetScope::Node, memory_use };
        Self {
            comparisons: ComparisonBudget::new((limit / 4).max(LEAST_COMPARISONS)),
            point_reads: ByteBudget::new(
                (limit / 4).max(LEAST_POINT_READS),
                name(MemoryUse::PointReads),
            ),
            arguments: ByteBudget::new(limit / 8, name(MemoryUse::Arguments)),
            sources: ByteBudget::new(limit / 2, name(MemoryUse::Sources)),
            messages: ByteBudget::new(limit / 8 * 3, name(MemoryUse::Messages)),
        }
    }

    /// Budget of arguments.
    pub fn arguments(&self) -> &Arc<ByteBudget> {
        &self.arguments
    }

    /// Budget of sources: open files and rows being merged.
    pub fn sources(&self) -> &Arc<ByteBudget> {
        &self.sources
    }

    /// Budget of messages that readers have yet to take.
    pub fn messages(&self) -> &Arc<ByteBudget> {
        &self.messages
    }

    /// Budget of point reads.
    pub fn point_reads(&self) -> &Arc<ByteBudget> {
        &self.point_reads
    }

    /// Budget of comparisons of regions with staged rows.
    pub fn comparisons(&self) -> &ComparisonBudget {
        &self.comparisons
    }

    /// Returns this memory with another budget of comparisons.
    #[cfg(test)]
    pub(crate) fn with_comparisons(self, limit: u64) -> Self {
        Self { comparisons: ComparisonBudget::new(limit), ..self }
    }

    /// Limit of scans in bytes.
    pub fn limit(&self) -> u64 {
        self.arguments.limit() + self.sources.limit() + self.messages.limit()
    }

    /// Bytes held by scans.
    pub fn used(&self) -> u64 {
        self.arguments.used() + self.sources.used() + self.messages.used()
    }

    /// Returns the account of a scan that has no budget of its own within the process's.
    pub fn account(&self) -> ScanAccount {
        ScanAccount::new(
            NestedBudgets::new([self.arguments.clone()]),
            NestedBudgets::new([self.sources.clone()]),
            NestedBudgets::new([self.messages.clone()]),
        )
    }
}

/// Budgets of one scan. The default is unlimited.
#[derive(Debug, Clone, Default)]
pub struct ScanAccount {
    /// Budgets of arguments.
    pub arguments: NestedBudgets,
    /// Budgets of open files and of rows being merged.
    pub sources: NestedBudgets,
    /// Budgets of messages.
    pub messages: NestedBudgets,
    /// Memory of sources above their budgets.
    pub excess: Excess,
}

impl ScanAccount {
    /// Creates the account of one scan.
    pub fn new(arguments: NestedBudgets, sources: NestedBudgets, messages: NestedBudgets) -> Self {
        let excess = Excess::new(sources.clone());
        Self { arguments, sources, messages, excess }
    }
}

#[cfg(test)]
mod tests;
