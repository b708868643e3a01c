//! Removal of a region: of a dropped table, or of a parent whose children are born.

use super::Region;
use super::copy::manifest_of;
use crate::EngineError;
use crate::layout::RegionDir;
use crate::manifest::{ActionKind, Author, Change};

impl Region {
    /// Marks the region as dropped in its manifest. Irreversible. Requires ownership.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], [`EngineError::Refused`] if the region is sealed:
    /// children may need its files; and errors of a commit.
    pub async fn remove(&self) -> Result<(), EngineError> {
        let result = self.record_removal(&[]).await;
        self.notifier.deliver().await;
        result
    }

    /// As [`Region::remove`], for a sealed region with whose files these regions begin.
    ///
    /// # Errors
    /// As [`Region::remove`]; [`EngineError::ChildUnborn`] for a child whose manifest does not reference the
    /// files yet: garbage collection would delete them.
    pub async fn remove_parent(&self, children: &[RegionDir]) -> Result<(), EngineError> {
        let result = self.record_removal(children).await;
        self.notifier.deliver().await;
        result
    }

    async fn record_removal(&self, children: &[RegionDir]) -> Result<(), EngineError> {
        let _flushing = self.flushing.lock().await;
        let own = match self.contents.lock().phase.check_owner(self.id()) {
            Err(EngineError::Removed { .. }) => return Ok(()),
            owner => owner?,
        };
        if children.is_empty() {
            self.check_not_sealed()?;
        }
        for child in children {
            self.check_child_born(*child).await?;
        }
        let change = Change::new(Author::Owner(own), vec![ActionKind::Remove]);
        self.note_fence(self.manifest.record(change).await)?;
        self.install_version();
        Ok(())
    }

    async fn check_child_born(&self, child: RegionDir) -> Result<(), EngineError> {
        let manifest = manifest_of(&self.env, child);
        manifest.refresh().await?;
        if manifest.state().parents.contains(&self.id()) {
            return Ok(());
        }
        Err(EngineError::ChildUnborn { region: self.id(), child: child.region_id })
    }
}
