//! Shares of callers: how many scans a caller may have open, and how much of their memory it may use.
//!
//! - *Caller*: a connection, or the network of one machine, which may have many connections.
//! - *Share*: part of the node's limits that a caller may use. Shares add up to more than all, so that
//!   a caller gets most of what is free. It gets all of the memory only if a single scan needs more than
//!   its share for the least, since rows cannot be split.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tidewater_common::peer_network::PeerNetwork;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::read::memory::{
    BudgetScope, ByteBudget, NestedBudgets, RETRY_AFTER, ScanAccount, ScanMemory,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::meters;

/// Identity of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Caller {
    Connection(SocketAddr),
    Network(PeerNetwork),
}

impl Caller {
    /// Returns the caller's part of a limit.
    fn part_of(self, limit: u64) -> u64 {
        let part = match self {
            Self::Connection(_) => limit / 2,
            Self::Network(_) => limit - limit / 8,
        };
        part.max(1)
    }

    fn scope(self) -> BudgetScope {
        match self {
            Self::Connection(_) => BudgetScope::Connection,
            Self::Network(_) => BudgetScope::Network,
        }
    }
}

/// Share of one caller, while it has open scans.
#[derive(Debug)]
struct CallerShare {
    caller: Caller,
    most_open: u64,
    open: Arc<Semaphore>,
    arguments: Arc<ByteBudget>,
    sources: Arc<ByteBudget>,
    messages: Arc<ByteBudget>,
}

/// Limits of the scans of a node.
#[derive(Debug)]
pub(super) struct ScanLimits {
    most_open: usize,
    open: Arc<Semaphore>,
    memory: Arc<ScanMemory>,
    callers: Mutex<HashMap<Caller, Weak<CallerShare>>>,
}

/// An open scan, until it is dropped.
#[must_use = "dropping an open scan makes room for another"]
#[derive(Debug)]
pub(super) struct OpenScan {
    /// Memory of the scan.
    pub(super) account: ScanAccount,
    _permits: Vec<OwnedSemaphorePermit>,
    _shares: Vec<Arc<CallerShare>>,
}

impl ScanLimits {
    /// Creates the limits: `most_open` scans, which use this memory.
    pub(super) fn new(most_open: usize, memory: Arc<ScanMemory>) -> Self {
        let open = Arc::new(Semaphore::new(most_open));
        Self { most_open, open, memory, callers: Mutex::default() }
    }

    /// Admits a scan of a connection. Without the address of its peer it has no share, only the
    /// node's limits.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when the node or the caller has its maximum of open scans.
    pub(super) fn admit(&self, peer: Option<SocketAddr>) -> Result<OpenScan, Refusal> {
        let shares: Vec<Arc<CallerShare>> = peer
            .map(|peer| [Caller::Connection(peer), Caller::Network(peer.ip().into())])
            .into_iter()
            .flatten()
            .map(|caller| self.share(caller))
            .collect();
        let mut permits = Vec::new();
        for share in &shares {
            let permit = share.open.clone().try_acquire_owned();
            permits
                .push(permit.map_err(|_| too_many_scans(share.most_open, share.caller.scope()))?);
        }
        let permit = self.open.clone().try_acquire_owned();
        permits.push(permit.map_err(|_| too_many_scans(self.most_open as u64, BudgetScope::Node))?);
        // The smallest budget first.
        let budgets = |own: fn(&CallerShare) -> &Arc<ByteBudget>, whole: &Arc<ByteBudget>| {
            let own = shares.iter().map(|share| own(share).clone());
            NestedBudgets::new(own.chain([whole.clone()]))
        };
        let account = ScanAccount::new(
            budgets(|share| &share.arguments, self.memory.arguments()),
            budgets(|share| &share.sources, self.memory.sources()),
            budgets(|share| &share.messages, self.memory.messages()),
        );
        Ok(OpenScan { account, _permits: permits, _shares: shares })
    }

    fn share(&self, caller: Caller) -> Arc<CallerShare> {
        let mut callers = self.callers.lock();
        if let Some(share) = callers.get(&caller).and_then(Weak::upgrade) {
            return share;
        }
        // The shares that are left belong to open scans, whose number is limited.
        callers.retain(|_, share| share.strong_count() > 0);
        let most_open = caller.part_of(self.most_open as u64);
        let budget = |whole: &ByteBudget| whole.part(caller.part_of(whole.limit()), caller.scope());
        let share = Arc::new(CallerShare {
            caller,
            most_open,
            open: Arc::new(Semaphore::new(usize::try_from(most_open).unwrap_or(1))),
            arguments: budget(self.memory.arguments()),
            sources: budget(self.memory.sources()),
            messages: budget(self.memory.messages()),
        });
        callers.insert(caller, Arc::downgrade(&share));
        share
    }
}

fn too_many_scans(most: u64, scope: BudgetScope) -> Refusal {
    meters::count_refused_scan();
    Refusal::new(
        Reason::Overloaded,
        format!(
            "{most} scans are open {scope} (maximum): read or close open scans, or retry later"
        ),
    )
    .retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests;
