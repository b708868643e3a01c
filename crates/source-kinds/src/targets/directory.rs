//! Local directories of targets, and symbolic links in them. All calls are blocking.
//!
//! The node writes with its own rights. A symbolic link that leads out of the granted directory is refused, also one that
//! was created after the target was opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tidewater_common::granted_dirs::resolve_below;

use super::TargetError;

/// Returns a directory below the granted one, without symbolic links, as far as it exists. It need not exist.
///
/// # Errors
/// [`TargetError::NotPermitted`] if it is outside of the granted directory.
pub(super) fn resolve(granted: &Path, path: &Path) -> Result<PathBuf, TargetError> {
    resolve_below(granted, path).ok_or_else(|| {
        TargetError::NotPermitted(format!(
            "{} is outside of {}, the --export-dir of this node: export to a directory below it",
            path.display(),
            granted.display()
        ))
    })
}

/// Checks the file of an object, which need not exist: it is below `root`, the directory of its target without symbolic
/// links, and a regular file.
///
/// # Errors
/// [`TargetError::NotPermitted`].
pub(super) fn check_file(root: &Path, file: &Path) -> Result<(), TargetError> {
    let refused =
        |problem: String| TargetError::NotPermitted(format!("{} {problem}", file.display()));
    let is_below = file.parent().is_some_and(|parent| resolve_below(root, parent).is_some());
    if !is_below {
        return Err(refused(format!(
            "is behind a symbolic link that leads out of {}: remove the link",
            root.display()
        )));
    }
    match fs::symlink_metadata(file) {
        Ok(metadata) if !metadata.is_file() => {
            Err(refused("is not a regular file: remove it, or export to another directory".into()))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(TargetError::Unavailable(
            format!("{}: {error}: check the directory", file.display()),
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}
