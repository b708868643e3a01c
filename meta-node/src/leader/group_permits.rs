//! Permits for calls of table procedures, and for those that stage files, separate for each group.
//!
//! A data node that hangs holds every call to the groups that it leads until the deadline. With common
//! permits, a few such calls would delay the tables of all groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

/// Maximum number of concurrent calls to a group, for all tables.
pub(crate) const MAX_CALLS_PER_GROUP: usize = 8;
/// Longest wait for a permit: as long as a call. A table with regions in other groups goes on with those.
const WAIT: Duration = Duration::from_secs(10);
/// Maximum number of concurrent calls to a group that stage files, for all tables: the node has few slots for such calls.
const MAX_STAGING_PER_GROUP: usize = 2;
/// Longest wait for a permit to stage files: as long as such a call.
const STAGING_WAIT: Duration = Duration::from_secs(90);

/// Permits of all groups for calls of one kind.
#[derive(Debug)]
pub(super) struct GroupPermits {
    /// Number of permits of each group.
    limit: usize,
    /// Longest wait for one.
    wait: Duration,
    groups: Mutex<BTreeMap<GroupId, Arc<Semaphore>>>,
}

impl GroupPermits {
    /// Permits for the calls of procedures.
    pub(super) fn for_calls() -> Self {
        Self { limit: MAX_CALLS_PER_GROUP, wait: WAIT, groups: Mutex::default() }
    }

    /// Permits for calls that stage files. They last for minutes, and delay no calls of procedures.
    pub(super) fn for_staging() -> Self {
        Self { limit: MAX_STAGING_PER_GROUP, wait: STAGING_WAIT, groups: Mutex::default() }
    }

    /// Waits for a permit of a group.
    ///
    /// # Errors
    /// [`Reason::Overloaded`]: earlier calls to the group took too long.
    pub(super) async fn acquire(&self, group: GroupId) -> Result<OwnedSemaphorePermit, Refusal> {
        let semaphore = {
            let mut groups = self.groups.lock();
            let new = || Arc::new(Semaphore::new(self.limit));
            Arc::clone(groups.entry(group).or_insert_with(new))
        };
        match timeout(self.wait, semaphore.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::new(
                Reason::Overloaded,
                format!("earlier calls to group {group} have not returned yet"),
            )),
        }
    }

    /// Removes groups that no longer exist.
    pub(super) fn retain_groups(&self, exists: impl Fn(GroupId) -> bool) {
        self.groups.lock().retain(|group, _| exists(*group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn busy_group_delays_no_other_group() {
        let permits = GroupPermits::for_calls();
        let mut held = Vec::new();
        for _ in 0..MAX_CALLS_PER_GROUP {
            held.push(permits.acquire(GroupId(1)).await.unwrap());
        }
        let begun = tokio::time::Instant::now();
        drop(permits.acquire(GroupId(2)).await.unwrap());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let refused = permits.acquire(GroupId(1)).await.unwrap_err();
        assert_eq!((refused.reason, begun.elapsed()), (Reason::Overloaded, WAIT));
        held.pop();
        drop(permits.acquire(GroupId(1)).await.unwrap());
        permits.retain_groups(|group| group == GroupId(2));
        assert_eq!(permits.groups.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn staging_waits_for_earlier_calls_of_its_group() {
        let permits = GroupPermits::for_staging();
        let mut held = Vec::new();
        for _ in 0..MAX_STAGING_PER_GROUP {
            held.push(permits.acquire(GroupId(1)).await.unwrap());
        }
        let begun = tokio::time::Instant::now();
        let refused = permits.acquire(GroupId(1)).await.unwrap_err();
        assert_eq!((refused.reason, begun.elapsed()), (Reason::Overloaded, STAGING_WAIT));
        held.pop();
        drop(permits.acquire(GroupId(1)).await.unwrap());
    }
}
