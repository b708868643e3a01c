//! Files of hooks: below a directory that the operator has granted, regular, and never behind a
//! symbolic link.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Component, Path};

use tidewater_common::granted_files::{self, GrantedFileError, open_regular, place};

/// Maximum size of a secret file in bytes. Keys of HMAC-SHA256 gain nothing beyond 64 bytes.
pub(crate) const MAX_SECRET_BYTES: u64 = 4 << 10;

/// Opens a file below `root` to append to it; creates the file if it does not exist.
pub(crate) fn open_append(root: &Path, file: &Path) -> Result<File, GrantedFileError> {
    let path = place(root, file)?;
    open_regular(OpenOptions::new().create(true).append(true), &path)
}

/// Checks that [`open_append`] may use the file, without creating it. Its directory may be created
/// later, as for a volume that is mounted late: calls fail until then.
pub(crate) fn check_append(root: &Path, file: &Path) -> Result<(), GrantedFileError> {
    let path = match place(root, file) {
        Err(GrantedFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return check_missing(root, file);
        }
        placed => placed?,
    };
    match std::fs::symlink_metadata(path) {
        Ok(known) if !known.is_file() => Err(GrantedFileError::NotRegular),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Checks a file whose directory does not exist: the part that exists is below `root`, and the rest
/// does not lead out of it.
fn check_missing(root: &Path, file: &Path) -> Result<(), GrantedFileError> {
    let known = file.ancestors().find_map(|known| Some((known, known.canonicalize().ok()?)));
    let is_below = known.is_some_and(|(known, resolved)| {
        let rest = file.strip_prefix(known).unwrap_or(file);
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        resolved.starts_with(root) && rest.components().all(is_plain)
    });
    if is_below { Ok(()) } else { Err(GrantedFileError::Outside { root: root.to_owned() }) }
}

/// Reads a secret below `root`, without white space at its end.
pub(crate) fn read_secret(root: &Path, file: &Path) -> Result<Vec<u8>, GrantedFileError> {
    let mut secret = granted_files::read_secret(root, file, MAX_SECRET_BYTES)?;
    secret.truncate(secret.trim_ascii_end().len());
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

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
    fn hook_secret_above_its_limit_is_refused() {
        let fixture = fixture();
        let large = fixture.root.join("large");
        std::fs::write(&large, vec![b'x'; 4_096]).unwrap();
        assert_eq!(read_secret(&fixture.root, &large).unwrap().len(), 4_096);
        assert_eq!(read_secret(&fixture.root, &fixture.root.join("plain")).unwrap(), b"plain");
        std::fs::write(&large, vec![b'x'; 4_097]).unwrap();
        let error = read_secret(&fixture.root, &large).unwrap_err();
        assert!(matches!(error, GrantedFileError::TooLarge { limit: 4_096 }), "{error}");
    }
}
