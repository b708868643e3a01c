//! Regions that owners have opened here: a table that is told the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::OwnerEpoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::layout::RegionDir;
use tokio::time::Instant;
use uuid::Uuid;

/// Regions open at once.
const MOST: usize = 1_024;
/// Until handles may have been closed.
const RETRY: Duration = Duration::from_secs(5);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Handles<R> {
    life: Duration,
    open: HashMap<Uuid, Handle<R>>,
}

#[derive(Debug)]
struct Handle<R> {
    dir: RegionDir,
    owner: OwnerEpoch,
    used: Instant,
    region: Arc<R>,
}

/// Why a region was not put into the table, or is not in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    #[error("{MOST} regions are open here: close some")]
    Full,
    #[error("{dir}: owner {own} was fenced by a later owner ({later}), who has opened it here")]
    Fenced { dir: RegionDir, own: OwnerEpoch, later: OwnerEpoch },
    #[error(
        "there is no handle {handle:?} here: it was closed, has expired, or a later owner has opened \
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

impl<R> Handles<R> {
    /// An empty table; unused handles live for `life`.
    pub(crate) fn new(life: Duration) -> Self {
        Self { life, open: HashMap::new() }
    }

    /// Takes in a region that `owner` has opened, and revokes what earlier owners have open of it.
    ///
    /// # Errors
    /// [`HandleError::Fenced`] when a later owner was faster, [`HandleError::Full`].
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
        if let Some(later) = of_region.map(|handle| handle.owner).max().filter(|one| *one > owner) {
            return Err(HandleError::Fenced { dir, own: owner, later });
        }
        self.open.retain(|_, handle| handle.dir != dir || handle.owner >= owner);
        if self.open.len() >= MOST {
            return Err(HandleError::Full);
        }
        self.open.insert(id, Handle { dir, owner, used: now, region });
        Ok(())
    }

    /// The region behind a handle, which lives on from here.
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

    /// Forgets a handle, if there is one.
    pub(crate) fn close(&mut self, text: &str) {
        if let Ok(id) = Uuid::parse_str(text) {
            self.open.remove(&id);
        }
    }

    /// Forgets those that were not used for too long. What a job holds is in use.
    pub(crate) fn expire(&mut self, now: Instant) {
        let life = self.life;
        self.open.retain(|_, handle| {
            if Arc::strong_count(&handle.region) > 1 {
                handle.used = now;
            }
            now.saturating_duration_since(handle.used) < life
        });
    }

    /// How long one lives that nobody uses.
    pub(crate) fn life(&self) -> Duration {
        self.life
    }

    /// How many there are.
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
        let (table_id, incarnation) = (TableId(1), Incarnation(1));
        RegionDir { table_id, region_id: RegionId(region), incarnation }
    }

    fn owner(term: u64) -> OwnerEpoch {
        OwnerEpoch { move_epoch: 0, term: Term(term) }
    }

    fn opened(handles: &mut Handles<u64>, region: u64, term: u64, now: Instant) -> String {
        let id = Uuid::new_v4();
        handles.insert(id, dir(region), owner(term), Arc::new(region), now).unwrap();
        id.to_string()
    }

    #[test]
    fn a_handle_lives_as_long_as_it_is_used() {
        let (mut handles, begun) = (Handles::new(LIFE), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let (a, b) = (opened(&mut handles, 1, 1, begun), opened(&mut handles, 2, 1, begun));
        assert_eq!(handles.get(&a, after(9)).map(|region| *region), Ok(1));
        let held = handles.get(&a, after(9)).unwrap();
        let gone = HandleError::NotFound { handle: b.clone() };
        assert_eq!(handles.get(&b, after(10)), Err(gone.clone()));
        // While a job has it, it is used.
        handles.expire(after(60));
        drop(held);
        assert!(handles.get(&a, after(69)).is_ok());
        handles.expire(after(79));
        assert_eq!(handles.len(), 0);
        let text = gone.to_string();
        assert!(text.contains("closed") && text.contains("expired") && text.contains("open it"));
    }

    #[test]
    fn a_closed_handle_is_gone_and_may_be_closed_again() {
        let (mut handles, now) = (Handles::new(LIFE), Instant::now());
        let a = opened(&mut handles, 1, 1, now);
        for text in [a.as_str(), a.as_str(), "none", ""] {
            handles.close(text);
            assert!(handles.get(text, now).is_err());
        }
    }

    #[test]
    fn a_later_owner_revokes_what_earlier_ones_have_open() {
        let (mut handles, now) = (Handles::new(LIFE), Instant::now());
        let first = opened(&mut handles, 1, 1, now);
        let again = opened(&mut handles, 1, 1, now);
        let other = opened(&mut handles, 2, 1, now);
        assert!(handles.get(&first, now).is_ok(), "the same owner may open it twice");
        let later = opened(&mut handles, 1, 2, now);
        assert!(handles.get(&first, now).is_err() && handles.get(&again, now).is_err());
        assert!(handles.get(&later, now).is_ok() && handles.get(&other, now).is_ok());
        let late = handles.insert(Uuid::new_v4(), dir(1), owner(1), Arc::new(1), now);
        let fenced = HandleError::Fenced { dir: dir(1), own: owner(1), later: owner(2) };
        assert_eq!(late, Err(fenced));
    }

    #[test]
    fn there_are_only_so_many() {
        let (mut handles, now) = (Handles::new(LIFE), Instant::now());
        for region in 0..MOST as u64 {
            opened(&mut handles, region, 1, now);
        }
        let one_more = handles.insert(Uuid::new_v4(), dir(9_999), owner(1), Arc::new(0), now);
        assert_eq!(one_more, Err(HandleError::Full));
        opened(&mut handles, 9_999, 1, now + LIFE);
        assert_eq!(handles.len(), 1);
    }

    #[test]
    fn every_error_has_its_reason() {
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
