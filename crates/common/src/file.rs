//! Reads of whole files: regular files of a limited size.
//!
//! A name may lead to a device, a pipe or a huge file, by mistake or on purpose. A read without a limit
//! would take all memory, or never end.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Reason why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system reported an error.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The path names a directory, a device, a pipe or a socket.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is too large.
    #[error("{} has {size} bytes, the maximum is {limit}", path.display())]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Size in bytes when it was opened, or the bytes that were read if it has grown since.
        size: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("{} is not text in UTF-8", path.display())]
    NotText {
        /// Path of the file.
        path: PathBuf,
    },
}

impl FileError {
    /// Returns whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a regular file of at most `limit` bytes. Blocking.
///
/// # Errors
/// [`FileError`], with the path.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let not_regular = || FileError::NotRegular { path: path.to_owned() };
    // Before it is opened: to open a pipe waits for its other end.
    if !path.metadata().map_err(io)?.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path).map_err(io)?;
    let known = file.metadata().map_err(io)?;
    if !known.is_file() {
        return Err(not_regular());
    }
    let too_large = |size| FileError::TooLarge { path: path.to_owned(), size, limit };
    if known.len() > limit {
        return Err(too_large(known.len()));
    }
    match read_at_most(file, limit).map_err(io)? {
        Some(bytes) => Ok(bytes),
        None => Err(too_large(limit.saturating_add(1))),
    }
}

/// As [`read_file`], for text in UTF-8.
///
/// # Errors
/// [`FileError`], with the path.
pub fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    let not_text = |_| FileError::NotText { path: path.to_owned() };
    String::from_utf8(read_file(path, limit)?).map_err(not_text)
}

/// Reads to the end; `None` if there are more than `limit` bytes, of which no more than one is read.
/// The buffer grows with the bytes that are read.
///
/// # Errors
/// Those of the reader.
pub fn read_at_most(reader: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // Limited read.
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_above_its_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        let error = read_file(&path, 4).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { size: 5, limit: 4, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("file has 5 bytes, the maximum is 4"), "{text}");
        // Its size on disk is not the only measure: files of the kernel have size 0.
        let error = read_file(Path::new("/proc/self/status"), 10).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { size: 11, limit: 10, .. }), "{error:?}");
        assert!(read_file(Path::new("/proc/self/status"), 1 << 20).is_ok());
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read_file(path, 10).unwrap_err();
            assert!(matches!(error, FileError::NotRegular { .. }), "{error:?}");
        }
        let error = read_file(&dir.path().join("missing"), 10).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        let bytes = dir.path().join("bytes");
        std::fs::write(&bytes, [0xff]).unwrap();
        assert!(matches!(read_text(&bytes, 10), Err(FileError::NotText { .. })));
    }

    #[test]
    fn endless_reader_is_read_up_to_the_limit() {
        assert_eq!(read_at_most(io::repeat(1), 10).unwrap(), None);
        assert_eq!(
            read_at_most(io::repeat(1).take(10), 10).unwrap().map(|bytes| bytes.len()),
            Some(10)
        );
        assert_eq!(read_at_most(io::empty(), 0).unwrap(), Some(vec![]));
    }
}
