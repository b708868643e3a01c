//! Excess: memory above the budgets, for rows that are larger than estimated.
//!
//! The size of a row is known when its file is opened. The scan then holds a lease already and may not
//! wait for more of the same budget: all scans could. One scan at a time exceeds the budget instead.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::{ByteLease, MAX_EXCESS, NestedBudgets};
use crate::EngineError;
use crate::meters;

/// Excess of the sources of one scan, which open one after the other.
#[derive(Debug, Clone, Default)]
pub struct Excess {
    budgets: NestedBudgets,
    state: Arc<Mutex<ExcessState>>,
}

#[derive(Debug, Default)]
struct ExcessState {
    bytes: u64,
    /// Held while there are bytes.
    turn: Option<OwnedSemaphorePermit>,
}

/// Memory of a source in addition to its part of the scan's lease, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it releases the memory"]
pub enum ExtraMemory {
    /// Within the budgets.
    Lease {
        /// The memory.
        lease: ByteLease,
    },
    /// Above the budgets.
    Excess {
        /// Excess of the scan.
        excess: Excess,
        /// The bytes.
        bytes: u64,
    },
}

impl Excess {
    /// Creates the excess of a scan with these budgets.
    pub(crate) fn new(budgets: NestedBudgets) -> Self {
        Self { budgets, state: Arc::default() }
    }

    /// Returns whether the scan has excess, which keeps others from it.
    pub fn is_held(&self) -> bool {
        self.state.lock().turn.is_some()
    }

    /// Charges `bytes` to the budgets if they are free, or else as excess, once no other scan has any.
    ///
    /// # Errors
    /// [`EngineError::ScanTooLarge`] if the scan's excess is the budget many times, and
    /// [`EngineError::ScanMemory`] if another scan has excess for longer than `wait`.
    pub async fn charge(
        &self,
        bytes: u64,
        wait: Duration,
    ) -> Result<Option<ExtraMemory>, EngineError> {
        let Some(largest) = self.budgets.largest() else { return Ok(None) };
        if let Some(lease) = self.budgets.try_lease(bytes) {
            return Ok(Some(ExtraMemory::Lease { lease }));
        }
        let needed = self.state.lock().bytes.saturating_add(bytes);
        if needed > largest.limit().saturating_mul(MAX_EXCESS) {
            return Err(largest.too_large(needed));
        }
        if self.state.lock().turn.is_none() {
            meters::record_waiting_scan();
            let turn = tokio::time::timeout(wait, largest.excess.clone().acquire_owned()).await;
            let Ok(Ok(turn)) = turn else { return Err(largest.exhausted(needed)) };
            self.state.lock().turn = Some(turn);
        }
        self.state.lock().bytes += bytes;
        Ok(Some(ExtraMemory::Excess { excess: self.clone(), bytes }))
    }
}

impl Drop for ExtraMemory {
    fn drop(&mut self) {
        if let Self::Excess { excess, bytes } = self {
            let mut state = excess.state.lock();
            state.bytes = state.bytes.saturating_sub(*bytes);
            if state.bytes == 0 {
                state.turn = None;
            }
        }
    }
}
