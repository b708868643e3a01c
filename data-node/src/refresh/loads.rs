//! Limit of the splits that a node loads at a time: each holds rows in memory.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Splits that a node loads at a time.
const CONCURRENT_LOADS: usize = 2;
/// Time after which a refused load is repeated.
const RETRY_TIME: Duration = Duration::from_millis(500);

/// Permits of loads.
#[derive(Debug, Clone)]
pub(super) struct Loads(Arc<Semaphore>);

impl Default for Loads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONCURRENT_LOADS)))
    }
}

impl Loads {
    /// Takes a permit.
    ///
    /// # Errors
    /// [`Reason::Overloaded`]: the node loads as many splits as it may.
    pub(super) fn acquire(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            let text = format!("this node already loads {CONCURRENT_LOADS} splits: retry");
            Refusal::new(Reason::Overloaded, text).retry_after(RETRY_TIME)
        })
    }
}
