//! Limits of the splits that a node loads at a time.
//!
//! - *Open load*: has a connection or a file of its source.
//! - *Slot*: permits to hold rows in memory, and an object on disk. A load begins with one, and gives it back while its source
//!   sends no first row: one that hangs does not delay the others.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Open loads of a node.
const OPEN_LOADS: usize = 16;
/// Loads that have a slot.
const SLOTS: usize = 2;
/// Time after which a refused load is repeated.
const RETRY_TIME: Duration = Duration::from_millis(500);

/// Permits of loads.
#[derive(Debug, Clone)]
pub(super) struct Loads {
    open: Arc<Semaphore>,
    slots: Arc<Semaphore>,
}

/// An open load. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct OpenLoad {
    _open: OwnedSemaphorePermit,
    slots: Arc<Semaphore>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Default for Loads {
    fn default() -> Self {
        Self { open: Arc::new(Semaphore::new(OPEN_LOADS)), slots: Arc::new(Semaphore::new(SLOTS)) }
    }
}

impl Loads {
    /// Begins a load.
    ///
    /// # Errors
    /// [`Reason::Overloaded`]: the node has as many open loads as it may.
    pub(super) fn open(&self) -> Result<OpenLoad, Refusal> {
        let open = self.open.clone().try_acquire_owned().map_err(|_| {
            let text = format!("this node already reads {OPEN_LOADS} splits of sources: retry");
            Refusal::new(Reason::Overloaded, text).retry_after(RETRY_TIME)
        })?;
        Ok(OpenLoad { _open: open, slots: self.slots.clone(), slot: None })
    }
}

impl OpenLoad {
    /// Gives the slot back until the source sends rows.
    pub(super) fn release_slot(&mut self) {
        self.slot = None;
    }

    /// Waits for a slot. Without effect if the load has one.
    pub(super) async fn take_slot(&mut self) {
        if self.slot.is_none() {
            // The semaphore is never closed.
            self.slot = self.slots.clone().acquire_owned().await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn slot_is_free_while_a_source_sends_no_rows() {
        let loads = Loads::default();
        let mut open: Vec<OpenLoad> = (0..OPEN_LOADS).map(|_| loads.open().unwrap()).collect();
        let refused = loads.open().unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        let mut take = |at: usize| open[at].take_slot().now_or_never().is_some();
        assert_eq!([5, 9, 5, 2].map(&mut take), [true, true, true, false]);
        open[5].release_slot();
        assert!(open[2].take_slot().now_or_never().is_some());
        assert!(open[5].take_slot().now_or_never().is_none());
        drop(open.remove(9));
        assert!(open[5].take_slot().now_or_never().is_some());
        assert!(loads.open().is_ok());
    }
}
