//! Memory of comparisons of regions with staged rows.
//!
//! - **Budget**: separate from that of scans, so that neither takes the memory of the other. A comparison waits until it
//!   gets memory, without a limit of time; requests are granted in the order of their arrival.
//! - **Large comparison**: large ones together leave a quarter of the budget to small ones.
//! - **Idle comparison**: its caller has a chunk and writes it. It keeps its sources open, with their memory, until it
//!   continues. A comparison that waits closes those that have been idle for some time: the log may be slow.
//!
//! A comparison waits before it opens a source and holds no memory meanwhile: comparisons do not deadlock. Only its
//! excess it awaits later, and the comparison that has the excess waits for nothing until it releases it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::budget::{ByteBudget, ByteLease, NestedBudgets};
use super::excess::Excess;
use super::name::{BudgetName, BudgetScope, MemoryUse};
use crate::EngineError;

/// Bytes with which two files of wide tables are compared about as fast as with more.
const FULL_SPEED: u64 = 24 << 20;

/// Number of equal shares of the budget of large comparisons, unless a share would be less than [`FULL_SPEED`].
const SHARES: u64 = 8;

/// A comparison that needs this many times the budget is refused: as much as a scan may need, see
/// [`super::budget::MAX_EXCESS`].
const MAX_EXCESS: u64 = 8;

/// Time for which an idle comparison keeps its memory while others wait: longer than the log usually takes for a chunk.
const KEPT_IDLE: Duration = Duration::from_millis(100);

/// Memory of all comparisons of a process.
#[derive(Debug)]
pub struct ComparisonBudget {
    whole: Arc<ByteBudget>,
    /// Budgets of a small comparison: `whole`.
    small: NestedBudgets,
    /// Budgets of a large one: three quarters of `whole`, and `whole`.
    large: NestedBudgets,
    /// Bytes up to which a comparison is small.
    small_bytes: u64,
    /// Number of comparisons that wait for memory.
    waiting: AtomicUsize,
    /// The longest idle first.
    idle: Mutex<VecDeque<IdleEntry>>,
}

/// Place of the open sources of a comparison while it is idle.
pub(crate) struct IdlePlace<T>(Arc<Mutex<Option<T>>>);

#[derive(Debug)]
struct IdleEntry {
    since: Instant,
    /// Gone if the comparison has ended, and empty if it has continued.
    place: Weak<dyn Close>,
}

trait Close: Send + Sync {
    /// Drops the open sources, if the comparison is still idle.
    fn close(&self);
}

/// Counts a comparison that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl ComparisonBudget {
    pub(super) fn new(limit: u64) -> Self {
        let name = BudgetName { scope: BudgetScope::Node, memory_use: MemoryUse::Comparisons };
        let whole = ByteBudget::new(limit, name);
        let large = whole.part(limit / 4 * 3, BudgetScope::Node);
        Self {
            small_bytes: whole.limit().saturating_sub(large.limit()),
            small: NestedBudgets::new([whole.clone()]),
            large: NestedBudgets::new([large, whole.clone()]),
            whole,
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
        }
    }

    /// Limit in bytes.
    pub fn limit(&self) -> u64 {
        self.whole.limit()
    }

    /// Bytes held by comparisons.
    pub fn used(&self) -> u64 {
        self.whole.used()
    }

    /// Bytes that a comparison holds at most, unless it cannot work with fewer.
    pub(crate) fn share(&self) -> u64 {
        let large = self.large.limit();
        (large / SHARES).max(FULL_SPEED).min(large)
    }

    /// Memory of a comparison above its lease, for rows that are larger than estimated.
    pub(crate) fn excess(&self) -> Excess {
        Excess::new(self.small.clone())
    }

    /// Charges these bytes once they are free, however long that takes. The caller must hold no other lease.
    ///
    /// # Errors
    /// [`EngineError::ScanTooLarge`] if they exceed the budget many times.
    pub(crate) async fn lease(&self, bytes: u64) -> Result<ByteLease, EngineError> {
        if bytes > self.limit().saturating_mul(MAX_EXCESS) {
            return Err(self.whole.too_large(bytes));
        }
        let budgets = if bytes <= self.small_bytes { &self.small } else { &self.large };
        if let Some(lease) = budgets.try_lease(bytes) {
            return Ok(lease);
        }
        let _waiting = Waiting::begin(&self.waiting);
        // One request for the whole wait: it keeps its turn.
        let mut request = pin!(budgets.wait_for(bytes));
        loop {
            self.close_idle();
            if let Ok(lease) = timeout(KEPT_IDLE, request.as_mut()).await {
                return lease.ok_or_else(|| EngineError::Internal {
                    detail: "the memory of comparisons was closed".to_owned(),
                });
            }
        }
    }

    /// Returns whether a comparison waits for memory.
    pub(crate) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Lets an idle comparison keep its open sources until it takes them back or others need their memory.
    pub(crate) fn keep_idle<T: Send + 'static>(&self, place: &IdlePlace<T>, sources: T) {
        *place.0.lock() = Some(sources);
        let place = Arc::downgrade(&place.0);
        let place: Weak<dyn Close> = place;
        let mut idle = self.idle.lock();
        // An earlier entry of the same comparison would close these sources too early.
        idle.retain(|other| other.place.strong_count() > 0 && !Weak::ptr_eq(&other.place, &place));
        idle.push_back(IdleEntry { since: Instant::now(), place });
    }

    /// Closes the comparisons that have been idle for [`KEPT_IDLE`].
    fn close_idle(&self) {
        loop {
            let is_due = |first: &mut IdleEntry| first.since.elapsed() >= KEPT_IDLE;
            // Closed without the lock: dropping sources takes some time.
            let Some(due) = self.idle.lock().pop_front_if(is_due) else { return };
            if let Some(place) = due.place.upgrade() {
                place.close();
            }
        }
    }
}

impl<T> IdlePlace<T> {
    /// Returns the open sources, unless they were closed.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<T> Default for IdlePlace<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Send> Close for Mutex<Option<T>> {
    fn close(&self) {
        let sources = self.lock().take();
        drop(sources);
    }
}

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
