//! One refresh, for output.

use serde::Serialize;
use tidewater_common::reason::label;
use tidewater_proto::v1::{Reason, RefreshOutcome, RefreshRun, RefreshTrigger};

/// One refresh. The JSON field names are stable; times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunLine {
    pub(super) generation: u64,
    pub(super) trigger: &'static str,
    /// `running`, `published`, `failed` or `cancelled`.
    pub(super) outcome: &'static str,
    pub(super) begun_ms: u64,
    pub(super) ended_ms: Option<u64>,
    pub(super) source_rows: u64,
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) deleted: u64,
    pub(super) unchanged: u64,
    pub(super) published_epoch: Option<u64>,
    pub(super) snapshot: String,
    pub(super) reason: Option<String>,
    pub(super) error: Option<String>,
}

impl From<&RefreshRun> for RunLine {
    fn from(run: &RefreshRun) -> Self {
        let counts = run.counts.unwrap_or_default();
        let some = |number: u64| (number != 0).then_some(number);
        let reason = Reason::try_from(run.error_reason).ok();
        Self {
            generation: run.generation,
            trigger: match run.trigger() {
                RefreshTrigger::Unspecified => "unknown",
                RefreshTrigger::Manual => "manual",
                RefreshTrigger::Interval => "interval",
                RefreshTrigger::Retry => "retry",
            },
            outcome: match run.outcome() {
                RefreshOutcome::Unspecified => "running",
                RefreshOutcome::Published => "published",
                RefreshOutcome::Failed => "failed",
                RefreshOutcome::Cancelled => "cancelled",
            },
            begun_ms: run.begun_ms,
            ended_ms: some(run.ended_ms),
            source_rows: run.source_rows,
            inserted: counts.inserted,
            updated: counts.updated,
            deleted: counts.deleted,
            unchanged: counts.unchanged,
            published_epoch: some(run.published_epoch),
            snapshot: run.snapshot.clone(),
            reason: reason.filter(|reason| *reason != Reason::Unspecified).map(label),
            error: (!run.error.is_empty()).then(|| run.error.clone()),
        }
    }
}

impl RunLine {
    /// Returns the counts, for people.
    pub(super) fn counts(&self) -> String {
        format!(
            "{} inserted, {} updated, {} deleted, {} unchanged",
            self.inserted, self.updated, self.deleted, self.unchanged
        )
    }
}
