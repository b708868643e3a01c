//! Deadline of reads: a read must end before objects that it has pinned can be collected.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::RegionId;

use crate::EngineError;

/// Deadline of one read.
#[derive(Debug, Clone)]
pub(crate) struct ReadDeadline {
    clock: Arc<dyn Clock>,
    region: RegionId,
    started_ms: u64,
    longest: Duration,
}

impl ReadDeadline {
    /// Starts the time of a read now.
    pub(crate) fn start(clock: Arc<dyn Clock>, region: RegionId, longest: Duration) -> Self {
        let started_ms = clock.now_ms();
        Self { clock, region, started_ms, longest }
    }

    /// Checks that the read may continue.
    ///
    /// # Errors
    /// [`EngineError::VersionExpired`] after `longest`.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let age_ms = self.clock.now_ms().saturating_sub(self.started_ms);
        if u128::from(age_ms) > self.longest.as_millis() {
            return Err(EngineError::VersionExpired { region: self.region, life: self.longest });
        }
        Ok(())
    }
}
