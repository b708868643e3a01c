//! Files below a [granted directory](crate::granted_dirs): regular, and never behind a symbolic link
//! that leads out of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::file::read_at_most;

/// Reason why a caller may not use a file.
#[derive(Debug, thiserror::Error)]
pub enum GrantedFileError {
    /// The file is not below the granted directory.
    #[error("is outside of {}: name a file below it", root.display())]
    Outside {
        /// The granted directory.
        root: PathBuf,
    },
    /// The path names a directory, a symbolic link, a device, a pipe or a socket.
    #[error("is not a regular file")]
    NotRegular,
    /// The secret is too large.
    #[error("has more than {limit} bytes, the maximum of a secret")]
    TooLarge {
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The operating system reported an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Returns the path of a file whose directory is `root` or below it. `root` has no symbolic links, and
/// neither has the directory of the returned path.
///
/// # Errors
/// [`GrantedFileError::Outside`]; [`GrantedFileError::Io`], also if the directory does not exist.
pub fn place(root: &Path, file: &Path) -> Result<PathBuf, GrantedFileError> {
    let outside = || GrantedFileError::Outside { root: root.to_owned() };
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(outside());
    };
    let parent = parent.canonicalize()?;
    if parent.starts_with(root) { Ok(parent.join(name)) } else { Err(outside()) }
}

/// Opens a regular file. Does not follow a symbolic link, and does not wait for the other end of a FIFO.
///
/// # Errors
/// [`GrantedFileError::NotRegular`], [`GrantedFileError::Io`].
pub fn open_regular(options: &mut OpenOptions, path: &Path) -> Result<File, GrantedFileError> {
    let file = match options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        // A symbolic link; a FIFO without a reader or a socket; a directory.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EISDIR)) =>
        {
            return Err(GrantedFileError::NotRegular);
        }
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(GrantedFileError::NotRegular) }
}

/// Opens a regular file below `root` for reading.
///
/// # Errors
/// [`GrantedFileError`].
pub fn open_read(root: &Path, file: &Path) -> Result<File, GrantedFileError> {
    open_regular(OpenOptions::new().read(true), &place(root, file)?)
}

/// Reads a secret of at most `limit` bytes below `root`. Blocking.
///
/// # Errors
/// [`GrantedFileError`].
pub fn read_secret(root: &Path, file: &Path, limit: u64) -> Result<Vec<u8>, GrantedFileError> {
    read_at_most(open_read(root, file)?, limit)?.ok_or(GrantedFileError::TooLarge { limit })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn secrets_are_small_regular_files_below_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (root, outside) = (base.join("root"), base.join("outside"));
        std::fs::create_dir_all(root.join("below")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("precious"), "precious").unwrap();
        std::fs::write(root.join("plain"), "plain\n").unwrap();
        symlink(outside.join("precious"), root.join("link")).unwrap();
        symlink(&outside, root.join("dirlink")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
        assert!(fifo.success());
        for path in [
            outside.join("precious"),
            root.join("../outside/precious"),
            root.join("dirlink/precious"),
            root.join("link"),
            root.join("fifo"),
            root.join("below"),
            root.join("missing"),
            root.join("missing/../../outside/precious"),
            PathBuf::from("/dev/zero"),
            PathBuf::from("/"),
        ] {
            read_secret(&root, &path, 10).expect_err(&path.display().to_string());
        }
        assert_eq!(read_secret(&root, &root.join("plain"), 6).unwrap(), b"plain\n");
        assert_eq!(read_secret(&root, &root.join("below/../plain"), 6).unwrap(), b"plain\n");
        let large = read_secret(&root, &root.join("plain"), 5);
        assert!(matches!(large, Err(GrantedFileError::TooLarge { limit: 5 })));
    }
}
