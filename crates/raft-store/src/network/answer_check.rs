//! Check of a response to an append against its request (pure). Openraft takes responses for granted: it
//! fails for good when one acknowledges entries that the leader does not have.

use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

use crate::types::{LogId, TypeConfig};

/// The log ids of an append, with which its response is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppendRange {
    /// The entry before the first one.
    previous: Option<LogId>,
    /// The last entry; the previous one without entries.
    last: Option<LogId>,
}

impl AppendRange {
    pub(super) fn of(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        Self { previous, last }
    }

    /// Returns whether a follower that received this append can give this response.
    pub(super) fn admits(&self, response: &StreamAppendResult<TypeConfig>) -> bool {
        match response {
            Ok(None) => true,
            Ok(Some(matched)) => {
                self.last.is_some_and(|last| *matched <= last && matched.index <= last.index)
            }
            Err(StreamAppendError::Conflict(at)) => self.previous == Some(*at),
            Err(StreamAppendError::HigherVote(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;
    use crate::types::{Vote, log_id};

    #[test]
    fn follower_acknowledges_only_sent_entries() {
        let append = |previous, entries: &[(u64, u64)]| {
            AppendRange::of(&AppendEntriesRequest {
                vote: Vote::new_committed(4, 1),
                prev_log_id: previous,
                entries: entries.iter().map(|(term, index)| entry(*term, *index, 1)).collect(),
                leader_commit: None,
            })
        };
        let entries = append(Some(log_id(3, 7)), &[(3, 8), (4, 9)]);
        let empty = append(Some(log_id(3, 7)), &[]);
        let first = append(None, &[(4, 0)]);
        let conflict = |term, index| Err(StreamAppendError::Conflict(log_id(term, index)));
        let cases = [
            (entries, Ok(Some(log_id(4, 9))), true),
            (entries, Ok(Some(log_id(3, 8))), true),
            (entries, Ok(None), true),
            (entries, conflict(3, 7), true),
            (entries, Err(StreamAppendError::HigherVote(Vote::new(9, 2))), true),
            (empty, Ok(Some(log_id(3, 7))), true),
            (first, Ok(Some(log_id(4, 0))), true),
            (entries, Ok(Some(log_id(4, 10))), false),
            (entries, Ok(Some(log_id(1, u64::MAX))), false),
            (entries, Ok(Some(log_id(5, 9))), false),
            (entries, conflict(3, 8), false),
            (entries, conflict(0, 0), false),
            (empty, Ok(Some(log_id(3, 8))), false),
            (first, conflict(0, 0), false),
        ];
        for (range, response, admitted) in cases {
            assert_eq!(range.admits(&response), admitted, "{range:?} {response:?}");
        }
    }
}
