use super::GroupLog;
use crate::log_store::error::StoreError;
use crate::log_store::state::CommittedComparison;
use crate::types::{Entry, LogId, Vote};

impl GroupLog {
    /// Checks that an append of the leader of `vote` leaves the committed entries as they are. Openraft
    /// takes entries below its committed index for its own without comparing them, and a storage
    /// error stops it for good: call this before the append reaches it. Reads the disk only for
    /// entries that were sent before.
    ///
    /// # Errors
    /// [`StoreError::ContradictsCommitted`], or the error of a read.
    pub async fn check_append(
        &self,
        vote: &Vote,
        previous: Option<LogId>,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        let group = self.state.id;
        let ids = previous.into_iter().chain(entries.iter().map(|entry| entry.log_id));
        let compared = self.state.log.lock().compare_committed(vote, ids);
        let found = match compared {
            CommittedComparison::Agrees => return Ok(()),
            CommittedComparison::Contradicts { found, local } => {
                return Err(StoreError::ContradictsCommitted { group, found, local });
            }
            CommittedComparison::Unknown(found) => found,
        };
        let stored = self.read(found.index, found.index + 1, usize::MAX).await?;
        match stored.first().map(|entry| entry.log_id) {
            Some(local) if local != found => {
                Err(StoreError::ContradictsCommitted { group, found, local })
            }
            // No entry: it was purged since.
            _ => Ok(()),
        }
    }
}
