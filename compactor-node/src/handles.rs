//! Table of the regions that owners have opened on this compactor; pure, the caller passes the
//! time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::OwnerEpoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::layout::RegionDir;
use tokio::time::Instant;
use uuid::Uuid;

/// Maximum number of open regions.
const MAX_OPEN: usize = 1_024;
/// Suggested retry delay: by then other handles may have been closed.
const RETRY: Duration = Duration::from_secs(5);

/// Open regions by handle. A handle lives until it is closed, expires, or a later owner opens the
/// region.
#[derive(Debug)]
pub(crate) struct HandleTable<R> {
    idle_limit: Duration,
    open: HashMap<Uuid, RegionHandle<R>>,
}

#[derive(Debug)]
struct RegionHandle<R> {
    dir: RegionDir,
    owner: OwnerEpoch,
    used: Instant,
    region: Arc<R>,
}

/// Error of opening or finding a region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    #[error("{MAX_OPEN} regions are open on this compactor (maximum): close some")]
    Full,
    #[error(
        "{dir}: owner {own} was fenced by the later owner {later}, which has opened the region"
    )]
    Fenced { dir: RegionDir, own: OwnerEpoch, later: OwnerEpoch },
    #[error(
        "there is no handle {handle:?}: it was closed, has expired, or a later owner has opened \
         the region; open it again"
    )]
    NotFound { handle: String },
}

impl From<HandleError> for Refusal {
    fn from(error: HandleError) -> Self {
        let refusal = |reason| Self::new(reason, error.to_string());
        match error {
            HandleError::Full => refusal(Reason::Overloaded).retry_after(RETRY),
            HandleError::Fenced { .. } => refusal(Reason::RegionFenced),
            HandleError::NotFound { .. } => refusal(Reason::HandleNotFound),
        }
    }
}

impl<R> HandleTable<R> {
    /// Creates an empty table; unused handles expire after `idle_limit`.
    pub(crate) fn new(idle_limit: Duration) -> Self {
        Self { idle_limit, open: HashMap::new() }
    }

    /// Adds a region that `owner` has opened, and revokes the handles of earlier owners.
    ///
    /// # Errors
    /// [`HandleError::Fenced`] if a later owner has opened the region, [`HandleError::Full`].
    pub(crate) fn insert(
        &mut self,
        id: Uuid,
        dir: RegionDir,
        owner: OwnerEpoch,
        region: Arc<R>,
        now: Instant,
    ) -> Result<(), HandleError> {
        self.expire(now);
        let of_region = self.open.values().filter(|handle| handle.dir == dir);
        if let Some(later) =
            of_region.map(|handle| handle.owner).max().filter(|latest| *latest > owner)
        {
            return Err(HandleError::Fenced { dir, own: owner, later });
        }
        self.open.retain(|_, handle| handle.dir != dir || handle.owner >= owner);
        if self.open.len() >= MAX_OPEN {
            return Err(HandleError::Full);
        }
        self.open.insert(id, RegionHandle { dir, owner, used: now, region });
        Ok(())
    }

    /// Returns the region of a handle and renews the handle.
    ///
    /// # Errors
    /// [`HandleError::NotFound`].
    pub(crate) fn get(&mut self, text: &str, now: Instant) -> Result<Arc<R>, HandleError> {
        self.expire(now);
        let found = Uuid::parse_str(text).ok().and_then(|id| self.open.get_mut(&id));
        let handle = found.ok_or_else(|| HandleError::NotFound { handle: text.to_owned() })?;
        handle.used = now;
        Ok(handle.region.clone())
    }

    /// Removes a handle, if it exists.
    pub(crate) fn close(&mut self, text: &str) {
        if let Ok(id) = Uuid::parse_str(text) {
            self.open.remove(&id);
        }
    }

    /// Removes expired handles. A region that a job holds is in use.
    pub(crate) fn expire(&mut self, now: Instant) {
        let idle_limit = self.idle_limit;
        self.open.retain(|_, handle| {
            if Arc::strong_count(&handle.region) > 1 {
                handle.used = now;
            }
            now.saturating_duration_since(handle.used) < idle_limit
        });
    }

    /// Time after which an unused handle expires.
    pub(crate) fn idle_limit(&self) -> Duration {
        self.idle_limit
    }

    /// Number of open handles.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Incarnation, RegionId, TableId, Term};

    use super::*;

    const LIFE: Duration = Duration::from_secs(10);

    fn dir(region: u64) -> RegionDir {
        let table_id = TableId(1);
        let incarnation = Incarnation(1);
        RegionDir { table_id, region_id: RegionId(region), incarnation }
    }

    fn owner(term: u64) -> OwnerEpoch {
        OwnerEpoch { move_epoch: 0, term: Term(term) }
    }

    fn open(handles: &mut HandleTable<u64>, region: u64, term: u64, now: Instant) -> String {
        let id = Uuid::new_v4();
        handles.insert(id, dir(region), owner(term), Arc::new(region), now).unwrap();
        id.to_string()
    }

    #[test]
    fn handle_expires_only_while_unused() {
        let mut handles = HandleTable::new(LIFE);
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let a = open(&mut handles, 1, 1, begun);
        let b = open(&mut handles, 2, 1, begun);
        assert_eq!(handles.get(&a, after(9)).map(|region| *region), Ok(1));
        let held = handles.get(&a, after(9)).unwrap();
        let expired = HandleError::NotFound { handle: b.clone() };
        assert_eq!(handles.get(&b, after(10)), Err(expired.clone()));
        // A handle is in use while a job holds its region.
        handles.expire(after(60));
        drop(held);
        assert!(handles.get(&a, after(69)).is_ok());
        handles.expire(after(79));
        assert_eq!(handles.len(), 0);
        let text = expired.to_string();
        assert!(text.contains("closed") && text.contains("expired") && text.contains("open it"));
    }

    #[test]
    fn closed_handle_is_not_found_and_closing_repeats() {
        let mut handles = HandleTable::new(LIFE);
        let now = Instant::now();
        let a = open(&mut handles, 1, 1, now);
        for text in [a.as_str(), a.as_str(), "none", ""] {
            handles.close(text);
            assert!(handles.get(text, now).is_err());
        }
    }

    #[test]
    fn later_owner_revokes_handles_of_earlier_owners() {
        let mut handles = HandleTable::new(LIFE);
        let now = Instant::now();
        let first = open(&mut handles, 1, 1, now);
        let again = open(&mut handles, 1, 1, now);
        let other = open(&mut handles, 2, 1, now);
        assert!(handles.get(&first, now).is_ok(), "the same owner may open it twice");
        let later = open(&mut handles, 1, 2, now);
        assert!(handles.get(&first, now).is_err() && handles.get(&again, now).is_err());
        assert!(handles.get(&later, now).is_ok() && handles.get(&other, now).is_ok());
        let late = handles.insert(Uuid::new_v4(), dir(1), owner(1), Arc::new(1), now);
        let fenced = HandleError::Fenced { dir: dir(1), own: owner(1), later: owner(2) };
        assert_eq!(late, Err(fenced));
    }

    #[test]
    fn open_handles_are_bounded() {
        let mut handles = HandleTable::new(LIFE);
        let now = Instant::now();
        for region in 0..MAX_OPEN as u64 {
            open(&mut handles, region, 1, now);
        }
        let one_more = handles.insert(Uuid::new_v4(), dir(9_999), owner(1), Arc::new(0), now);
        assert_eq!(one_more, Err(HandleError::Full));
        open(&mut handles, 9_999, 1, now + LIFE);
        assert_eq!(handles.len(), 1);
    }

    #[test]
    fn handle_errors_have_their_reasons() {
        let fenced = HandleError::Fenced { dir: dir(1), own: owner(1), later: owner(2) };
        for (error, reason) in [
            (HandleError::Full, Reason::Overloaded),
            (fenced, Reason::RegionFenced),
            (HandleError::NotFound { handle: "x".into() }, Reason::HandleNotFound),
        ] {
            assert_eq!(Refusal::from(error).reason, reason);
        }
    }
}
