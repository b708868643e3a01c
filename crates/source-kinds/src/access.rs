//! Files that the sources of a node may read, hosts that they may call, and disk space that they leave free. Targets of
//! exports use the same files of credentials and the same hosts.
//!
//! A source is configured by a caller, and a node reads it with its own rights. The operator of the node
//! therefore grants directories and hosts, on each node that reads sources. Without a grant, no source reads a
//! file of the node.

use std::fs::File;
use std::path::{Path, PathBuf};

use tidewater_common::granted_dirs::{DirectoryError, DirectoryGrants};
use tidewater_common::granted_files::{self, GrantedFileError};

use crate::SourceError;
use crate::hosts::SourceHosts;

/// Maximum size of a file with credentials or a password, in bytes.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Permissions that the operator of a node gives its sources. The default permits no files, and all hosts except
/// for those with special addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceAccess {
    /// Directory, without symbolic links, below which sources read rows.
    source_dir: Option<PathBuf>,
    /// Directory, without symbolic links, below which sources read credentials.
    secret_dir: Option<PathBuf>,
    /// Hosts that sources call.
    hosts: SourceHosts,
    /// Bytes that temporary files of sources leave free on their disk.
    free_bytes: u64,
}

impl SourceAccess {
    /// Checks the directories: they exist, and overlap neither with each other nor with the other directories of
    /// `grants`.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn new(
        source_dir: Option<&Path>,
        secret_dir: Option<&Path>,
        grants: &mut DirectoryGrants,
    ) -> Result<Self, DirectoryError> {
        let source_dir = grants.grant("--source-dir", source_dir)?;
        let secret_dir = grants.grant("--source-secret-dir", secret_dir)?;
        Ok(Self { source_dir, secret_dir, ..Self::default() })
    }

    /// Sets the hosts that sources may call.
    #[must_use]
    pub fn with_hosts(mut self, hosts: SourceHosts) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets the bytes that temporary files of sources leave free on their disk. Default: 0.
    #[must_use]
    pub fn with_free_bytes(mut self, free_bytes: u64) -> Self {
        self.free_bytes = free_bytes;
        self
    }

    /// Hosts that sources may call.
    pub(crate) fn hosts(&self) -> &SourceHosts {
        &self.hosts
    }

    /// Bytes that temporary files of sources leave free on their disk.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Reads a file with credentials or a password, without the line end at its end. The file is regular,
    /// below the secret directory, and has at most 64 KiB. Blocking, for a short time.
    ///
    /// # Errors
    /// [`SourceError::NotPermitted`] if the operator does not grant the file, [`SourceError::Unreadable`]
    /// if it cannot be read. No error contains a part of the file.
    pub fn read_secret(&self, path: &Path) -> Result<String, SourceError> {
        let root = self.secret_dir.as_deref().ok_or_else(|| {
            SourceError::NotPermitted(
                "this node permits no files of credentials: start it with --source-secret-dir DIR, and \
                 keep the file below DIR"
                    .to_owned(),
            )
        })?;
        let bytes = granted_files::read_secret(root, path, MAX_SECRET_BYTES)
            .map_err(|error| file_error(path, &error))?;
        let mut text = String::from_utf8(bytes).map_err(|_| {
            SourceError::Unreadable(format!("{} is not text in UTF-8", path.display()))
        })?;
        let text_length = text.strip_suffix('\n').map_or(text.len(), str::len);
        text.truncate(text_length);
        let text_length = text.strip_suffix('\r').map_or(text.len(), str::len);
        text.truncate(text_length);
        Ok(text)
    }

    /// Returns a directory below the source directory, without symbolic links. Blocking.
    ///
    /// # Errors
    /// [`SourceError::NotPermitted`] if the operator does not grant the directory,
    /// [`SourceError::Unreadable`] if it does not exist.
    pub(crate) fn directory(&self, path: &Path) -> Result<PathBuf, SourceError> {
        let root = self.source_dir()?;
        let unreadable = |reason: &str| {
            SourceError::Unreadable(format!("directory {}: {reason}", path.display()))
        };
        let place = path.canonicalize().map_err(|error| unreadable(&error.to_string()))?;
        if !place.starts_with(root) {
            return Err(outside(path, root));
        }
        if place.is_dir() {
            Ok(place)
        } else {
            Err(unreadable("is not a directory: name the directory of the files"))
        }
    }

    /// Opens a regular file below the source directory. Blocking.
    ///
    /// # Errors
    /// [`SourceError::NotPermitted`] if the operator does not grant the file, [`SourceError::Changed`] if it
    /// does not exist, [`SourceError::Unreadable`] if it cannot be read.
    pub(crate) fn open(&self, path: &Path) -> Result<File, SourceError> {
        granted_files::open_read(self.source_dir()?, path).map_err(|error| match error {
            GrantedFileError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
                SourceError::Changed(format!("{} no longer exists", path.display()))
            }
            error => file_error(path, &error),
        })
    }

    /// Returns the directory below which sources read rows, or the remedy.
    ///
    /// # Errors
    /// [`SourceError::NotPermitted`].
    pub(crate) fn source_dir(&self) -> Result<&Path, SourceError> {
        self.source_dir.as_deref().ok_or_else(|| {
            SourceError::NotPermitted(
                "this node permits no source to read its files: start it with --source-dir DIR, and \
                 keep the files below DIR"
                    .to_owned(),
            )
        })
    }
}

fn outside(path: &Path, root: &Path) -> SourceError {
    let error = GrantedFileError::Outside { root: root.to_owned() };
    SourceError::NotPermitted(format!("{} {error}", path.display()))
}

fn file_error(path: &Path, error: &GrantedFileError) -> SourceError {
    let text = match error {
        GrantedFileError::Io(error) => format!("{} cannot be read: {error}", path.display()),
        error => format!("{} {error}", path.display()),
    };
    match error {
        GrantedFileError::Outside { .. } | GrantedFileError::NotRegular => {
            SourceError::NotPermitted(text)
        }
        GrantedFileError::TooLarge { .. } | GrantedFileError::Io(_) => {
            SourceError::Unreadable(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn granted(
        source_dir: Option<&Path>,
        secret_dir: Option<&Path>,
        protected: &[PathBuf],
    ) -> Result<SourceAccess, DirectoryError> {
        SourceAccess::new(source_dir, secret_dir, &mut DirectoryGrants::new(protected))
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        sources: PathBuf,
        secrets: PathBuf,
        outside: PathBuf,
        access: SourceAccess,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let [sources, secrets, outside] = ["sources", "secrets", "outside"].map(|name| {
            std::fs::create_dir(base.join(name)).unwrap();
            base.join(name)
        });
        std::fs::write(outside.join("precious"), "precious").unwrap();
        let access = granted(Some(&sources), Some(&secrets), &[]).unwrap();
        Fixture { _dir: dir, sources, secrets, outside, access }
    }

    #[test]
    fn sources_read_no_files_without_directories() {
        let none = SourceAccess::default();
        let path = Path::new("/etc/passwd");
        for (error, option) in [
            (none.read_secret(path).unwrap_err(), "--source-secret-dir DIR"),
            (none.open(path).unwrap_err(), "--source-dir DIR"),
            (none.directory(Path::new("/etc")).unwrap_err(), "--source-dir DIR"),
        ] {
            assert!(matches!(error, SourceError::NotPermitted(_)), "{error}");
            assert!(error.to_string().contains(option), "{error}");
        }
    }

    #[test]
    fn source_directories_are_separate() {
        let Fixture { sources, secrets, .. } = &fixture();
        for (source_dir, secret_dir, protected) in [
            (sources, sources, &[][..]),
            (sources, secrets, std::slice::from_ref(secrets)),
            (sources, secrets, &[sources.join("data")]),
        ] {
            let error = granted(Some(source_dir), Some(secret_dir), protected).unwrap_err();
            assert!(matches!(error, DirectoryError::Overlap { .. }), "{error}");
        }
    }

    #[test]
    fn source_directories_overlap_no_earlier_grant() {
        let Fixture { sources, secrets, .. } = &fixture();
        let below = sources.join("hooks");
        std::fs::create_dir(&below).unwrap();
        for (option, earlier) in [("--hook-dir", &below), ("--hook-secret-dir", secrets)] {
            let mut grants = DirectoryGrants::new(&[]);
            grants.grant(option, Some(earlier)).unwrap();
            let error = SourceAccess::new(Some(sources), Some(secrets), &mut grants).unwrap_err();
            assert!(matches!(error, DirectoryError::Overlap { .. }), "{error}");
        }
    }

    #[test]
    fn secret_is_returned_without_its_line_end() {
        let Fixture { secrets, access, .. } = &fixture();
        let path = secrets.join("password");
        for (written, expected) in
            [("s3cr3t", "s3cr3t"), ("s3cr3t \n", "s3cr3t "), ("a\nb\r\n", "a\nb"), ("a\n\n", "a\n")]
        {
            std::fs::write(&path, written).unwrap();
            assert_eq!(access.read_secret(&path).unwrap(), expected);
        }
        for bytes in [vec![b'x'; 65_537], b"s3cr3t\xff".to_vec()] {
            std::fs::write(&path, bytes).unwrap();
            let error = access.read_secret(&path).unwrap_err();
            assert!(matches!(error, SourceError::Unreadable(_)), "{error}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn sources_read_no_files_outside_of_their_directories() {
        let Fixture { sources, secrets, outside, access, .. } = &fixture();
        for root in [sources, secrets] {
            symlink(outside.join("precious"), root.join("link")).unwrap();
            symlink(outside, root.join("dirlink")).unwrap();
            for path in ["link", "dirlink/precious", "../outside/precious"] {
                let path = root.join(path);
                let error = if root == sources {
                    access.open(&path).map(drop).unwrap_err()
                } else {
                    access.read_secret(&path).map(drop).unwrap_err()
                };
                assert!(matches!(error, SourceError::NotPermitted(_)), "{path:?}: {error}");
            }
        }
        for path in ["dirlink", ".."] {
            let error = access.directory(&sources.join(path)).unwrap_err();
            assert!(matches!(error, SourceError::NotPermitted(_)), "{path}: {error}");
        }
        assert_eq!(access.directory(sources).unwrap(), *sources);
    }

    #[test]
    fn missing_source_files_are_reported_by_kind() {
        let Fixture { sources, secrets, access, .. } = &fixture();
        let missing = access.read_secret(&secrets.join("no")).unwrap_err();
        assert!(matches!(missing, SourceError::Unreadable(_)), "{missing}");
        let missing = access.directory(&sources.join("no")).unwrap_err();
        assert!(matches!(missing, SourceError::Unreadable(_)), "{missing}");
        // A file that a listing has named.
        let missing = access.open(&sources.join("no")).unwrap_err();
        assert!(matches!(missing, SourceError::Changed(_)), "{missing}");
    }
}
