//! Atomically written file: complete or absent.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A file that is written under a temporary name in the target's directory and then renamed. An
/// existing target stays until the new file is complete. An interrupted scan leaves no file.
pub(crate) struct AtomicFile {
    target: PathBuf,
    /// Temporary file; `None` if the target is a device or a pipe, which is written in place.
    partial: Option<PathBuf>,
}

impl AtomicFile {
    /// Creates the temporary file for `path`.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, File)> {
        let in_place = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        if in_place {
            return Ok((Self { target: path.to_owned(), partial: None }, File::create(path)?));
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        // A symbolic link stays a link to the new file.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let partial = target.with_file_name(name);
        let file = File::create(&partial)?;
        Ok((Self { target, partial: Some(partial) }, file))
    }

    /// Renames the complete file to its target.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        match self.partial.take() {
            None => Ok(()),
            Some(partial) => std::fs::rename(&partial, &self.target).inspect_err(|_| {
                // Report the error of the rename, not of the removal.
                let _ = std::fs::remove_file(&partial);
            }),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // The file may be absent already.
            let _ = std::fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn dropped_file_leaves_the_existing_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, "old").unwrap();
        let (pending, mut file) = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(pending);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["rows.csv"]);
    }

    #[test]
    fn committed_file_replaces_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        for text in ["first", "second"] {
            let (pending, mut file) = AtomicFile::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            pending.commit().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes());
        }
        assert_eq!(names(dir.path()), ["rows.csv"]);
    }

    #[test]
    fn device_is_written_in_place() {
        let (pending, mut file) = AtomicFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"rows").unwrap();
        pending.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn missing_directory_is_an_error() {
        assert!(AtomicFile::create(Path::new("/nowhere/rows.csv")).is_err());
    }
}
