//! Attempts on the splits of a load: which failures are retried (pure).

use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

/// Attempts on a split, and on the listing of a source.
pub(super) const ATTEMPTS: u32 = 8;
/// Wait before a retry.
pub(super) const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

/// Returns whether another attempt, possibly on another node, may succeed.
pub(super) fn is_retried(problem: &Refusal) -> bool {
    match problem.reason {
        // The source is wrong, or the refresh has ended.
        Reason::SourceMismatch
        | Reason::SourceChanged
        | Reason::InvalidArgument
        | Reason::NotRefreshable
        | Reason::TableNotFound
        | Reason::ProcedureSuperseded
        | Reason::Unsupported
        | Reason::LoadEnded => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_nodes_are_retried_and_wrong_sources_not() {
        for (reason, expected) in [
            (Reason::Unavailable, true),
            (Reason::Overloaded, true),
            (Reason::SourceUnreadable, true),
            (Reason::CatalogBehind, true),
            (Reason::SourceMismatch, false),
            (Reason::SourceChanged, false),
            (Reason::ProcedureSuperseded, false),
        ] {
            assert_eq!(is_retried(&Refusal::new(reason, "")), expected, "{reason:?}");
        }
    }
}
