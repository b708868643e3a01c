//! Validity of the log ids of an append: openraft takes them for granted, and a gap ends its core.

use openraft::raft::AppendEntriesRequest;

use super::{LogId, TypeConfig, Vote};

/// Greatest index and term of a message. Far above every real log, and far enough below the end of
/// the integers that adding to it never overflows.
const GREATEST: u64 = 1 << 62;

/// A log id that no leader sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogIdError {
    /// The index or the term is out of range.
    #[error("log id {0} is out of range")]
    OutOfRange(LogId),
    /// An entry does not follow on its predecessor.
    #[error("entry {entry} does not follow on {previous}")]
    Gap {
        /// Log id of the entry.
        entry: LogId,
        /// Log id of its predecessor, or `nothing`.
        previous: String,
    },
    /// An entry or a snapshot is of a later term than its leader.
    #[error("log id {id} is later than term {term} of its leader")]
    AfterLeader {
        /// The log id.
        id: LogId,
        /// Term of the leader.
        term: u64,
    },
}

/// Checks that the entries of an append follow on each other, and are not later than their leader.
pub(crate) fn check_append(request: &AppendEntriesRequest<TypeConfig>) -> Result<(), LogIdError> {
    let mut previous = request.prev_log_id;
    for id in previous.iter().chain(&request.leader_commit) {
        check_log_id(id, &request.vote)?;
    }
    for entry in &request.entries {
        check_log_id(&entry.log_id, &request.vote)?;
        if !follows(&entry.log_id, previous.as_ref()) {
            let previous = previous.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
            return Err(LogIdError::Gap { entry: entry.log_id, previous });
        }
        previous = Some(entry.log_id);
    }
    Ok(())
}

/// Checks that a log id is in range, and not later than the leader that sends it.
pub(crate) fn check_log_id(id: &LogId, leader: &Vote) -> Result<(), LogIdError> {
    if id.index > GREATEST || id.leader_id.term > GREATEST {
        return Err(LogIdError::OutOfRange(*id));
    }
    let term = leader.leader_id.term;
    if id.leader_id.term > term {
        return Err(LogIdError::AfterLeader { id: *id, term });
    }
    Ok(())
}

fn follows(id: &LogId, previous: Option<&LogId>) -> bool {
    match previous {
        None => id.index == 0,
        Some(previous) => {
            id.index == previous.index + 1 && id.leader_id.term >= previous.leader_id.term
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;
    use crate::types::log_id;

    #[test]
    fn entries_follow_on_each_other() {
        // (previous log id, entries, commit, accepted), as (term, index); the leader is of term 4.
        type Case = (Option<(u64, u64)>, &'static [(u64, u64)], Option<(u64, u64)>, bool);
        let cases: &[Case] = &[
            (None, &[], None, true),
            (None, &[(0, 0), (1, 1), (4, 2)], Some((1, 1)), true),
            (Some((2, 7)), &[(2, 8), (4, 9)], Some((4, 90)), true),
            (Some((2, 7)), &[], Some((2, 3)), true),
            (None, &[(1, 1)], None, false),
            (Some((2, 7)), &[(2, 9)], None, false),
            (Some((2, 7)), &[(2, 7)], None, false),
            (Some((2, 7)), &[(2, 8), (2, 10)], None, false),
            (Some((2, 7)), &[(1, 8)], None, false),
            (Some((2, 7)), &[(5, 8)], None, false),
            (Some((5, 7)), &[], None, false),
            (Some((2, 7)), &[], Some((5, 8)), false),
            (Some((2, 7)), &[(2, u64::MAX)], None, false),
            (Some((2, u64::MAX)), &[(2, 0)], None, false),
            (Some((2, u64::MAX)), &[], None, false),
        ];
        for (previous, entries, commit, accepted) in cases {
            let id = |(term, index): (u64, u64)| log_id(term, index);
            let request = AppendEntriesRequest {
                vote: Vote::new_committed(4, 1),
                prev_log_id: previous.map(id),
                entries: entries.iter().map(|(term, index)| entry(*term, *index, 1)).collect(),
                leader_commit: commit.map(id),
            };
            let checked = check_append(&request);
            assert_eq!(checked.is_ok(), *accepted, "{previous:?} {entries:?} {commit:?}");
        }
    }
}
