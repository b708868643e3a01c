//! Changes of a region's key range: the seal before a split or a merge, and its reverse.

use tidewater_common::ids::ManifestVersion;
use tidewater_common::keys::KeyRange;

use super::Region;
use crate::EngineError;
use crate::manifest::{ActionKind, Author, Change, ProcedureStep, Void};

impl Region {
    /// Records another key range and returns a manifest version that contains it. The empty range seals
    /// the region: its content stays the same until the range is restored or the region is removed, and the
    /// returned version is that of the seal, which children name. Requires ownership. Idempotent.
    ///
    /// Reads use the range with which the region was opened, and are not affected.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], errors of a commit, and [`EngineError::Refused`]
    /// for a stale procedure step, for a seal while a staging area is open, and when the log has decided a
    /// change that a sealed region cannot record: then the range has to be restored.
    pub async fn set_range(
        &self,
        range: KeyRange,
        step: Option<ProcedureStep>,
    ) -> Result<ManifestVersion, EngineError> {
        let set = self.set_range_if(range, step, || true).await?;
        Ok(set.unwrap_or_else(|| self.manifest.state().version))
    }

    /// As [`Region::set_range`], if the range is still wanted once no other change of it is in progress. `None`: it
    /// is not, and nothing was changed.
    ///
    /// # Errors
    /// As [`Region::set_range`].
    pub async fn set_range_if(
        &self,
        range: KeyRange,
        step: Option<ProcedureStep>,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<Option<ManifestVersion>, EngineError> {
        // No flush is in progress.
        let _flushing = self.flushing.lock().await;
        if !is_wanted() {
            return Ok(None);
        }
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.install_version();
        let seals = range.is_empty();
        if seals {
            self.record_pending_obligations().await?;
        }
        let own = self.contents.lock().phase.check_owner(self.id())?;
        let state = self.manifest.state();
        // A restoration is recorded also without a seal, so that a delayed seal of an earlier step is void.
        let is_current = step <= state.procedure;
        let is_recorded = if seals {
            state.is_sealed()
        } else {
            state.range.as_ref() == Some(&range) && is_current
        };
        if !is_recorded {
            let kind = ActionKind::PartitionExprChange { range };
            let mut change = Change::new(Author::Owner(own), vec![kind]);
            change.procedure = step;
            self.note_fence(self.manifest.update_manifest(change).await)?;
            self.install_version();
        }
        if seals {
            // The log may have decided another change before the seal was committed. It would be lost with
            // the region.
            self.record_pending_obligations().await?;
        }
        let state = self.manifest.state();
        Ok(Some(state.sealed_at.unwrap_or(state.version)))
    }

    /// Returns true if the region is sealed, as of the last read of the manifest: flushes and compactions
    /// wait until the range is restored.
    pub fn is_sealed(&self) -> bool {
        self.manifest.state().is_sealed()
    }

    /// Returns an error if the region is sealed: its rows wait in memory.
    pub(super) fn check_not_sealed(&self) -> Result<(), EngineError> {
        if self.is_sealed() {
            return Err(EngineError::Refused { region: self.id(), reason: Void::Sealed });
        }
        Ok(())
    }
}
