//! Limits of the splits that a node loads at a time.
//!
//! - *Open load*: has a connection or a file of its source. The open loads for one server are limited, too: one that hangs
//!   does not take all loads of the node.
//! - *Slot*: permits to hold rows in memory, and an object on disk. A load begins with one, and gives it back while its source
//!   sends no rows: one that hangs, or sends few rows, does not delay the others.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::server_loads::{LOADS_OF_SERVER, ServerLoads};

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
    servers: Arc<Mutex<ServerLoads>>,
}

/// An open load. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct OpenLoad {
    _open: OwnedSemaphorePermit,
    _server: ServerPermit,
    slots: Arc<Semaphore>,
    slot: Option<OwnedSemaphorePermit>,
}

/// Permit for an open load of a server.
#[derive(Debug)]
struct ServerPermit {
    servers: Arc<Mutex<ServerLoads>>,
    server: String,
}

impl Drop for ServerPermit {
    fn drop(&mut self) {
        self.servers.lock().end(&self.server);
    }
}

impl Default for Loads {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(OPEN_LOADS)),
            slots: Arc::new(Semaphore::new(SLOTS)),
            servers: Arc::default(),
        }
    }
}

impl Loads {
    /// Begins a load from a server.
    ///
    /// # Errors
    /// [`Reason::Overloaded`]: the node has as many open loads as it may, or as many for this server.
    pub(super) fn open(&self, server: &str) -> Result<OpenLoad, Refusal> {
        let open = self.open.clone().try_acquire_owned().map_err(|_| {
            overloaded(format!("this node already reads {OPEN_LOADS} splits of sources: retry"))
        })?;
        if !self.servers.lock().begin(server) {
            return Err(overloaded(format!(
                "this node already reads {LOADS_OF_SERVER} splits from {server}: retry"
            )));
        }
        let server = ServerPermit { servers: self.servers.clone(), server: server.to_owned() };
        Ok(OpenLoad { _open: open, _server: server, slots: self.slots.clone(), slot: None })
    }
}

fn overloaded(text: String) -> Refusal {
    Refusal::new(Reason::Overloaded, text).retry_after(RETRY_TIME)
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
        let opened = |number: usize| loads.open(&number.to_string()).unwrap();
        let mut open: Vec<OpenLoad> = (0..OPEN_LOADS).map(opened).collect();
        let refused = loads.open("other").unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        let mut take = |at: usize| open[at].take_slot().now_or_never().is_some();
        assert_eq!([5, 9, 5, 2].map(&mut take), [true, true, true, false]);
        open[5].release_slot();
        assert!(open[2].take_slot().now_or_never().is_some());
        assert!(open[5].take_slot().now_or_never().is_none());
        drop(open.remove(9));
        assert!(open[5].take_slot().now_or_never().is_some());
        assert!(loads.open("other").is_ok());
    }

    #[test]
    fn hanging_server_leaves_loads_to_other_servers() {
        let loads = Loads::default();
        let mut hanging: Vec<OpenLoad> =
            (0..LOADS_OF_SERVER).map(|_| loads.open("db:5432").unwrap()).collect();
        let refused = loads.open("db:5432").unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (Reason::Overloaded, Some(RETRY_TIME)));
        assert!(refused.message.contains("4 splits from db:5432"), "{refused}");
        // A refused load takes no place of others.
        let others: Vec<OpenLoad> =
            (LOADS_OF_SERVER..OPEN_LOADS).map(|at| loads.open(&at.to_string()).unwrap()).collect();
        drop(others);
        drop(hanging.pop());
        assert!(loads.open("db:5432").is_ok());
    }
}
