//! Files of hooks: below a directory that the operator has granted, regular, and never behind a
//! symbolic link.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Maximum size of a secret file in bytes. Keys of HMAC-SHA256 gain nothing beyond 64 bytes.
pub(crate) const MAX_SECRET_BYTES: u64 = 4 << 10;

/// Reason why a hook may not use a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("is outside of {}: name a file below it", root.display())]
    Outside { root: PathBuf },
    #[error("is not a regular file")]
    NotRegular,
    #[error("has more than {MAX_SECRET_BYTES} bytes, the maximum of a secret")]
    TooLarge,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Returns the path of a file whose directory is `root` or below it. `root` has no symbolic links.
fn place(root: &Path, file: &Path) -> Result<PathBuf, FileError> {
    let outside = || FileError::Outside { root: root.to_owned() };
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(outside());
    };
    let parent = parent.canonicalize()?;
    if parent.starts_with(root) { Ok(parent.join(name)) } else { Err(outside()) }
}

/// Opens without following a symbolic link and without waiting for the other end of a FIFO.
fn open_regular(options: &mut OpenOptions, path: &Path) -> Result<File, FileError> {
    let file = match options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        // A symbolic link; a FIFO without a reader or a socket; a directory.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EISDIR)) =>
        {
            return Err(FileError::NotRegular);
        }
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(FileError::NotRegular) }
}

/// Opens a file below `root` to append to it; creates the file if it does not exist.
pub(crate) fn open_append(root: &Path, file: &Path) -> Result<File, FileError> {
    let path = place(root, file)?;
    open_regular(OpenOptions::new().create(true).append(true), &path)
}

/// Checks that [`open_append`] may use the file, without creating it. Its directory may be created
/// later, as for a volume that is mounted late: calls fail until then.
pub(crate) fn check_append(root: &Path, file: &Path) -> Result<(), FileError> {
    let path = match place(root, file) {
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return check_missing(root, file);
        }
        placed => placed?,
    };
    match std::fs::symlink_metadata(path) {
        Ok(known) if !known.is_file() => Err(FileError::NotRegular),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Checks a file whose directory does not exist: the part that exists is below `root`, and the rest
/// does not lead out of it.
fn check_missing(root: &Path, file: &Path) -> Result<(), FileError> {
    let known = file.ancestors().find_map(|known| Some((known, known.canonicalize().ok()?)));
    let is_below = known.is_some_and(|(known, resolved)| {
        let rest = file.strip_prefix(known).unwrap_or(file);
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        resolved.starts_with(root) && rest.components().all(is_plain)
    });
    if is_below { Ok(()) } else { Err(FileError::Outside { root: root.to_owned() }) }
}

/// Reads a secret below `root`, without white space at its end.
pub(crate) fn read_secret(root: &Path, file: &Path) -> Result<Vec<u8>, FileError> {
    let path = place(root, file)?;
    let file = open_regular(OpenOptions::new().read(true), &path)?;
    let mut secret = Vec::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut secret)?;
    if secret.len() as u64 > MAX_SECRET_BYTES {
        return Err(FileError::TooLarge);
    }
    secret.truncate(secret.trim_ascii_end().len());
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fixture {
        _dir: tempfile::TempDir,
        root: PathBuf,
        outside: PathBuf,
    }

    fn fixture() -> Fixture {
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
        Fixture { _dir: dir, root, outside }
    }

    /// Paths below the fixture's root that no hook may use.
    fn refused(fixture: &Fixture) -> Vec<PathBuf> {
        let root = &fixture.root;
        vec![
            fixture.outside.join("precious"),
            fixture.outside.join("new"),
            root.join("../outside/precious"),
            root.join("below/../../outside/new"),
            root.join("dirlink/precious"),
            root.join("dirlink/new"),
            root.join("link"),
            root.join("fifo"),
            root.join("below"),
            root.join("missing/../../outside/new"),
            fixture.outside.join("missing/new"),
            root.join("dirlink/missing/new"),
            PathBuf::from("/dev/null"),
            PathBuf::from("/"),
        ]
    }

    #[test]
    fn hooks_append_to_regular_files_below_the_directory_only() {
        let fixture = fixture();
        for path in refused(&fixture) {
            check_append(&fixture.root, &path).expect_err(&path.display().to_string());
            open_append(&fixture.root, &path).expect_err(&path.display().to_string());
        }
        assert_eq!(std::fs::read_dir(&fixture.outside).unwrap().count(), 1, "a file was created");
        let later = fixture.root.join("missing/new");
        check_append(&fixture.root, &later).unwrap();
        open_append(&fixture.root, &later).unwrap_err();
        for path in ["plain", "new", "below/new", "below/../new"] {
            let path = fixture.root.join(path);
            check_append(&fixture.root, &path).unwrap();
            open_append(&fixture.root, &path).unwrap();
        }
    }

    #[test]
    fn secrets_are_small_regular_files_below_the_directory() {
        let fixture = fixture();
        for path in refused(&fixture).into_iter().chain([PathBuf::from("/dev/zero")]) {
            read_secret(&fixture.root, &path).expect_err(&path.display().to_string());
        }
        assert_eq!(read_secret(&fixture.root, &fixture.root.join("plain")).unwrap(), b"plain");
        let large = fixture.root.join("large");
        std::fs::write(&large, vec![b'x'; 4_096]).unwrap();
        assert_eq!(read_secret(&fixture.root, &large).unwrap().len(), 4_096);
        std::fs::write(&large, vec![b'x'; 4_097]).unwrap();
        assert!(matches!(read_secret(&fixture.root, &large), Err(FileError::TooLarge)));
    }
}
