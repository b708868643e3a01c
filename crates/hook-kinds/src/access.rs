//! Files and addresses that the hooks of a node may use.
//!
//! A hook is configured by a caller, and a node calls it with its own rights. The operator of the
//! node therefore grants directories and private addresses, on each node that calls hooks.
//! Without a grant, no hook writes or reads a file, and webhooks call public addresses only.

use std::io;
use std::path::{Path, PathBuf};

/// Permissions that the operator of a node gives its hooks. The default allows public addresses only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookAccess {
    /// Directory, without symbolic links, below which hooks write files.
    hook_dir: Option<PathBuf>,
    /// Directory, without symbolic links, below which hooks read secrets.
    secret_dir: Option<PathBuf>,
    /// Webhooks may call private, loopback, link-local and other special addresses.
    private_webhooks: bool,
}

/// Reason why directories of hooks are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum HookAccessError {
    /// The directory does not exist, or cannot be read.
    #[error("{option} {}: {error}; create the directory first", path.display())]
    Unusable {
        /// The option that names the directory.
        option: &'static str,
        /// The directory.
        path: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
    /// Hooks could write to files of the node, or to the secrets of other hooks.
    #[error(
        "{option} {} overlaps with {}: choose a directory of its own",
        path.display(),
        other.display()
    )]
    Overlap {
        /// The option that names the directory.
        option: &'static str,
        /// The directory.
        path: PathBuf,
        /// The directory that it contains or is part of.
        other: PathBuf,
    },
}

impl HookAccess {
    /// Checks the directories: they exist, and overlap neither with each other nor with
    /// `protected`, the data directories and local object stores of the process.
    ///
    /// # Errors
    /// [`HookAccessError`].
    pub fn new(
        hook_dir: Option<&Path>,
        secret_dir: Option<&Path>,
        private_webhooks: bool,
        protected: &[PathBuf],
    ) -> Result<Self, HookAccessError> {
        let mut others: Vec<PathBuf> = protected.iter().map(|path| resolve_known(path)).collect();
        let mut accept = |option: &'static str, path: Option<&Path>| {
            let Some(path) = path else { return Ok(None) };
            let path = existing_directory(path).map_err(|error| HookAccessError::Unusable {
                option,
                path: path.to_owned(),
                error,
            })?;
            if let Some(other) = others.iter().find(|other| overlaps(&path, other)) {
                let other = other.clone();
                return Err(HookAccessError::Overlap { option, path, other });
            }
            others.push(path.clone());
            Ok(Some(path))
        };
        let hook_dir = accept("--hook-dir", hook_dir)?;
        let secret_dir = accept("--hook-secret-dir", secret_dir)?;
        Ok(Self { hook_dir, secret_dir, private_webhooks })
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

    /// Returns whether webhooks may call addresses that are not public.
    pub(crate) fn allows_private_webhooks(&self) -> bool {
        self.private_webhooks
    }
}

fn existing_directory(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    if path.is_dir() { Ok(path) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

/// Returns the path without symbolic links, as far as it exists: a data directory is created after
/// this check.
fn resolve_known(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = path.ancestors().find_map(|known| Some((known, known.canonicalize().ok()?)));
    match known {
        Some((known, resolved)) => match path.strip_prefix(known) {
            Ok(rest) if !rest.as_os_str().is_empty() => resolved.join(rest),
            _ => resolved,
        },
        None => path,
    }
}

/// Returns whether one directory contains the other, or both are the same.
fn overlaps(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_overlap_if_one_contains_the_other() {
        for (one, other, expected) in [
            ("/a", "/a", true),
            ("/a/b", "/a", true),
            ("/a", "/a/b", true),
            ("/a/b", "/a/c", false),
            ("/a/bc", "/a/b", false),
            ("/", "/a", true),
        ] {
            assert_eq!(overlaps(Path::new(one), Path::new(other)), expected, "{one} {other}");
        }
    }

    #[test]
    fn hook_directory_is_separate_from_protected_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (hooks, data, missing) = (root.join("hooks"), root.join("data"), root.join("new/data"));
        std::fs::create_dir_all(&hooks).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        std::os::unix::fs::symlink(&data, root.join("link")).unwrap();
        let with = |hook_dir: &Path| {
            HookAccess::new(Some(hook_dir), None, false, &[data.clone(), missing.clone()])
        };
        assert_eq!(with(&hooks).unwrap().hook_dir(), Ok(hooks.as_path()));
        for overlapping in [&data, &root.join("link"), &root, &root.join("hooks/../data")] {
            let error = with(overlapping).unwrap_err();
            assert!(matches!(error, HookAccessError::Overlap { .. }), "{overlapping:?}: {error}");
        }
        std::fs::create_dir_all(missing.join("below")).unwrap();
        assert!(matches!(with(&missing.join("below")), Err(HookAccessError::Overlap { .. })));
        assert!(matches!(with(&root.join("no")), Err(HookAccessError::Unusable { .. })));
        let both = HookAccess::new(Some(&hooks), Some(&hooks), false, &[]);
        assert!(matches!(both, Err(HookAccessError::Overlap { .. })));
    }

    #[test]
    fn hooks_use_no_files_without_directories() {
        let none = HookAccess::default();
        assert!(none.hook_dir().unwrap_err().contains("--hook-dir"));
        assert!(none.secret_dir().unwrap_err().contains("--hook-secret-dir"));
        assert!(!none.allows_private_webhooks());
    }
}
