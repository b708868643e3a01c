//! A file that is there whole or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A file being written beside the one that it becomes. What was under that name before stays until
/// the new one is whole; a scan that is cut off leaves nothing behind.
pub(crate) struct WholeFile {
    target: PathBuf,
    /// `None` when written in place: devices and pipes have no place for another file beside them.
    partial: Option<PathBuf>,
}

impl WholeFile {
    /// Begins the file at `path`.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, File)> {
        let in_place = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        if in_place {
            return Ok((Self { target: path.to_owned(), partial: None }, File::create(path)?));
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        // A link stays a link, to a file that is new.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let partial = target.with_file_name(name);
        let file = File::create(&partial)?;
        Ok((Self { target, partial: Some(partial) }, file))
    }

    /// Puts the file, to which everything was written, in its place.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        match self.partial.take() {
            None => Ok(()),
            Some(partial) => std::fs::rename(&partial, &self.target).inspect_err(|_| {
                // The error that is told is that of the rename.
                let _ = std::fs::remove_file(&partial);
            }),
        }
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // It may not even be there any more.
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
    fn a_file_that_is_given_up_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, "old").unwrap();
        let (whole, mut file) = WholeFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(whole);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["rows.csv"]);
    }

    #[test]
    fn a_file_that_is_whole_takes_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        for text in ["first", "second"] {
            let (whole, mut file) = WholeFile::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            whole.keep().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes());
        }
        assert_eq!(names(dir.path()), ["rows.csv"]);
    }

    #[test]
    fn devices_are_written_to_as_they_are() {
        let (whole, mut file) = WholeFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"rows").unwrap();
        whole.keep().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(WholeFile::create(Path::new("/nowhere/rows.csv")).is_err());
    }
}
