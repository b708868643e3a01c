//! Errors that a call may end with while a scenario injects faults.

use tidewater_client::ClientError;
use tidewater_proto::v1::Reason;

/// Returns whether a change of a table or route may end with this error when nodes fail, and others change and
/// cancel.
pub fn is_expected(error: &ClientError) -> bool {
    let reason = error.refusal().map(|refusal| refusal.reason);
    error.maybe_done()
        || matches!(
            error,
            ClientError::RetriesExhausted { .. }
                | ClientError::NoMetaReachable { .. }
                | ClientError::TimedOut { .. }
        )
        || matches!(
            reason,
            Some(
                Reason::TableBusy
                    | Reason::RouteBusy
                    | Reason::RegionNotFound
                    | Reason::KeyOutsideRegion
                    | Reason::KeyOnBoundary
                    | Reason::ProcedureCancelled
                    | Reason::ProcedureSuperseded
            )
        )
}
