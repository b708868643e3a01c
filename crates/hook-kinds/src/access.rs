//! Files and addresses that the hooks of a node may use, and the recorder of their events.
//!
//! A hook is configured by a caller, and a node calls it with its own rights. The operator of the
//! node therefore grants directories and private addresses, on each node that calls hooks.
//! Without a grant, no hook writes or reads a file, and webhooks call public addresses only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewater_common::granted_dirs::{DirectoryError, DirectoryGrants};
use tidewater_events::{EventRecorderRef, NoRecorder};

use crate::event_tables::EventTables;

/// Permissions that the operator of a node gives its hooks, and the recorder of the node. The default allows public
/// addresses only, and records no events.
#[derive(Debug, Clone)]
pub struct HookAccess {
    /// Directory, without symbolic links, below which hooks write files.
    hook_dir: Option<PathBuf>,
    /// Directory, without symbolic links, below which hooks read secrets.
    secret_dir: Option<PathBuf>,
    /// Webhooks may call private, loopback, link-local and other special addresses.
    private_webhooks: bool,
    /// Recorder of the node.
    events: EventRecorderRef,
    /// Tables about which no events are recorded.
    pub(crate) event_tables: EventTables,
}

impl Default for HookAccess {
    fn default() -> Self {
        Self {
            hook_dir: None,
            secret_dir: None,
            private_webhooks: false,
            events: Arc::new(NoRecorder),
            event_tables: EventTables::default(),
        }
    }
}

impl HookAccess {
    /// Checks the directories: they exist, and overlap neither with each other nor with
    /// `protected`, the data directories and local object stores of the process.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn new(
        hook_dir: Option<&Path>,
        secret_dir: Option<&Path>,
        private_webhooks: bool,
        protected: &[PathBuf],
    ) -> Result<Self, DirectoryError> {
        let mut grants = DirectoryGrants::new(protected);
        Self::with_grants(hook_dir, secret_dir, private_webhooks, &mut grants)
    }

    /// As [`new`](Self::new), for a process that also grants other directories. They overlap with none of `grants`.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn with_grants(
        hook_dir: Option<&Path>,
        secret_dir: Option<&Path>,
        private_webhooks: bool,
        grants: &mut DirectoryGrants,
    ) -> Result<Self, DirectoryError> {
        let hook_dir = grants.grant("--hook-dir", hook_dir)?;
        let secret_dir = grants.grant("--hook-secret-dir", secret_dir)?;
        Ok(Self { hook_dir, secret_dir, private_webhooks, ..Self::default() })
    }

    /// Sets the recorder of `events` hooks. They record nothing about `event_tables`, to which the node adds tables.
    #[must_use]
    pub fn with_events(self, events: EventRecorderRef, event_tables: EventTables) -> Self {
        Self { events, event_tables, ..self }
    }

    /// Returns the directory below which hooks write, or the remedy.
    pub(crate) fn hook_dir(&self) -> Result<&Path, String> {
        self.hook_dir.as_deref().ok_or_else(|| {
            "this node allows no hook to write files: start it with --hook-dir DIR, and name a file \
             below DIR"
                .to_owned()
        })
    }

    /// Returns the directory below which hooks read secrets, or the remedy.
    pub(crate) fn secret_dir(&self) -> Result<&Path, String> {
        self.secret_dir.as_deref().ok_or_else(|| {
            "this node allows no hook to read a secret: start it with --hook-secret-dir DIR, and \
             keep the secret_file below DIR"
                .to_owned()
        })
    }

    /// Returns the recorder of the node, or the remedy if the node records no events.
    pub(crate) fn recorder(&self) -> Result<&EventRecorderRef, String> {
        if self.events.is_recording() {
            return Ok(&self.events);
        }
        Err("this node records no events, and a hook of kind events would lose its calls: start it without \
             --events off, and a compactor with --event-dir DIR"
            .to_owned())
    }

    /// Returns whether webhooks may call addresses that are not public.
    pub(crate) fn allows_private_webhooks(&self) -> bool {
        self.private_webhooks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_directories_are_separate() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (hooks, data) = (root.join("hooks"), root.join("data"));
        std::fs::create_dir_all(&hooks).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let with = |hook_dir: &Path, secret_dir: Option<&Path>| {
            HookAccess::new(Some(hook_dir), secret_dir, false, std::slice::from_ref(&data))
        };
        assert_eq!(with(&hooks, None).unwrap().hook_dir(), Ok(hooks.as_path()));
        for (hook_dir, secret_dir) in [(&data, None), (&hooks, Some(hooks.as_path()))] {
            let error = with(hook_dir, secret_dir).unwrap_err();
            assert!(matches!(error, DirectoryError::Overlap { .. }), "{error}");
        }
    }

    #[test]
    fn hook_directories_overlap_no_earlier_grant() {
        let dir = tempfile::tempdir().unwrap();
        let sources = dir.path().join("sources");
        std::fs::create_dir(&sources).unwrap();
        let mut grants = DirectoryGrants::new(&[]);
        grants.grant("--source-dir", Some(&sources)).unwrap();
        for hook_dir in [dir.path(), &sources] {
            let error =
                HookAccess::with_grants(Some(hook_dir), None, false, &mut grants).unwrap_err();
            assert!(matches!(error, DirectoryError::Overlap { .. }), "{error}");
        }
    }

    #[test]
    fn hooks_use_no_files_without_directories() {
        let none = HookAccess::default();
        assert!(none.hook_dir().unwrap_err().contains("--hook-dir"));
        assert!(none.secret_dir().unwrap_err().contains("--hook-secret-dir"));
        assert!(!none.allows_private_webhooks());
    }
}
