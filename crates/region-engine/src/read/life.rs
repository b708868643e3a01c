//! How long a read may go on: as long as nothing that it has pinned can be collected.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::RegionId;

use crate::EngineError;

/// The clock of one read.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    clock: Arc<dyn Clock>,
    region: RegionId,
    began_ms: u64,
    longest: Duration,
}

impl Life {
    /// Begins now.
    pub(crate) fn begin(clock: Arc<dyn Clock>, region: RegionId, longest: Duration) -> Self {
        let began_ms = clock.now_ms();
        Self { clock, region, began_ms, longest }
    }

    /// # Errors
    /// [`EngineError::VersionExpired`] from its end on.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let age_ms = self.clock.now_ms().saturating_sub(self.began_ms);
        if u128::from(age_ms) > self.longest.as_millis() {
            return Err(EngineError::VersionExpired { region: self.region, life: self.longest });
        }
        Ok(())
    }
}
