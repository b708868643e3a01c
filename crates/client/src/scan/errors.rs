//! Errors of scans.

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;

use super::region::ScanPlan;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;

/// Returns the name of a scan in messages.
pub(super) fn operation(plan: &ScanPlan) -> String {
    format!("scan of table {:?}", plan.table.name)
}

/// Returns the failure of a scan of keys without a route.
pub(super) fn no_route(plan: &ScanPlan) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(
            Reason::RegionNotFound,
            format!("table {:?} has no route for some of its keys", plan.table.name),
        ),
        effect: Effect::None,
        silent: false,
    }
}

/// Returns the error of a scan that ends in a region after it has yielded rows.
pub(super) fn interrupted(
    plan: &ScanPlan,
    region: RegionId,
    rows: u64,
    failure: FailedAttempt,
) -> ClientError {
    ClientError::ScanInterrupted {
        table: plan.table.name.clone(),
        region,
        rows,
        cause: Box::new(failure.refusal),
    }
}

/// Returns whether a region does not read the epoch of a scan.
pub(super) fn is_epoch_error(failure: &FailedAttempt) -> bool {
    failure.refusal.reason == Reason::EpochRequired
}

/// Returns the error of a scan whose epoch a region does not read any more: with another epoch, it would mix the rows of two
/// refreshes. `rows`: those that it has yielded.
pub(super) fn epoch_not_readable(
    plan: &ScanPlan,
    region: RegionId,
    rows: u64,
    failure: FailedAttempt,
) -> ClientError {
    if rows > 0 {
        return interrupted(plan, region, rows, failure);
    }
    ClientError::Refused { what: operation(plan), refusal: Box::new(failure.refusal) }
}
