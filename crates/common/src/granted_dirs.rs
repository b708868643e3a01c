//! Directories that the operator of a node grants to callers, as for hooks, sources and exports.
//!
//! A caller configures what a node reads or writes with the node's own rights. A granted directory
//! limits this: it exists, and shares no file with the node's data or with another granted directory.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Reason why a directory is not granted.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
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
    /// Callers could reach files of the node, or those of another grant.
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

/// Check of the granted directories of one process.
#[derive(Debug)]
pub struct DirectoryGrants {
    /// Directories that the next one must not overlap with, without symbolic links.
    others: Vec<PathBuf>,
}

impl DirectoryGrants {
    /// Creates the check. `protected`: the data directories and local object stores of the process.
    pub fn new(protected: &[PathBuf]) -> Self {
        Self { others: protected.iter().map(|path| resolve_known(path)).collect() }
    }

    /// Grants a directory, if there is one. Returns its path without symbolic links. `option` names it
    /// in errors.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn grant(
        &mut self,
        option: &'static str,
        path: Option<&Path>,
    ) -> Result<Option<PathBuf>, DirectoryError> {
        let Some(path) = path else { return Ok(None) };
        let path = existing_directory(path).map_err(|error| DirectoryError::Unusable {
            option,
            path: path.to_owned(),
            error,
        })?;
        if let Some(other) = self.others.iter().find(|other| overlaps(&path, other)) {
            let other = other.clone();
            return Err(DirectoryError::Overlap { option, path, other });
        }
        self.others.push(path.clone());
        Ok(Some(path))
    }
}

/// Returns a path without symbolic links, as far as it exists, if it is `root` or below it. The path need not exist. `root`
/// has no symbolic links. Blocking.
pub fn resolve_below(root: &Path, path: &Path) -> Option<PathBuf> {
    let place = resolve_known(path);
    let is_plain = place.components().all(|part| part != Component::ParentDir);
    (is_plain && place.starts_with(root)).then_some(place)
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
    fn granted_directory_is_separate_from_protected_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (own, data, missing) = (root.join("own"), root.join("data"), root.join("new/data"));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        std::os::unix::fs::symlink(&data, root.join("link")).unwrap();
        let grant = |path: &Path| {
            DirectoryGrants::new(&[data.clone(), missing.clone()]).grant("--dir", Some(path))
        };
        assert_eq!(grant(&own).unwrap(), Some(own.clone()));
        for overlapping in [&data, &root.join("link"), &root, &root.join("own/../data")] {
            let error = grant(overlapping).unwrap_err();
            assert!(matches!(error, DirectoryError::Overlap { .. }), "{overlapping:?}: {error}");
        }
        std::fs::create_dir_all(missing.join("below")).unwrap();
        assert!(matches!(grant(&missing.join("below")), Err(DirectoryError::Overlap { .. })));
        assert!(matches!(grant(&root.join("no")), Err(DirectoryError::Unusable { .. })));
    }

    #[test]
    fn missing_paths_resolve_below_their_root() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (root, outside) = (base.join("root"), base.join("outside"));
        std::fs::create_dir_all(root.join("below")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink(root.join("below"), root.join("inner")).unwrap();
        for (path, expected) in [
            ("root", Some("root")),
            ("root/below/new/x", Some("root/below/new/x")),
            ("root/inner/new", Some("root/below/new")),
            ("root/below/../new", Some("root/new")),
            ("root/link", None),
            ("root/link/new", None),
            ("root/missing/../../outside", None),
            ("root/..", None),
            ("outside", None),
        ] {
            let found = resolve_below(&root, &base.join(path));
            assert_eq!(found, expected.map(|path| base.join(path)), "{path}");
        }
    }

    #[test]
    fn granted_directories_are_separate_from_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut grants = DirectoryGrants::new(&[]);
        assert_eq!(grants.grant("--one", None).unwrap(), None);
        grants.grant("--one", Some(dir.path())).unwrap();
        let error = grants.grant("--two", Some(dir.path())).unwrap_err();
        assert!(error.to_string().starts_with("--two "), "{error}");
    }
}
