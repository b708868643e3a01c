//! Writing a file so that its name appears only once its content is on disk.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use parking_lot::Mutex;

/// How a staged file gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Fails with `AlreadyExists` when the name is taken.
    IfAbsent,
    /// Takes the name over.
    Replace,
}

/// A file that is not named yet; removed on drop unless it was.
#[derive(Debug)]
struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

/// A name that listings hide: the store skips `#<digits>` at the end.
pub(super) fn staged_name(target: &Path) -> PathBuf {
    let number = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut name = target.as_os_str().to_owned();
    name.push(format!("#{number}"));
    name.into()
}

/// The directories that are known to be durable, each with all above it.
///
/// That a directory exists does not say so: whoever made it may not have synced its parent yet, and
/// would take with it, in a power cut, what others have put there meanwhile.
#[derive(Debug, Default)]
pub(super) struct Dirs {
    durable: Mutex<HashSet<PathBuf>>,
}

/// Writes a file whole; it is durable when this returns.
pub(super) fn put(
    dirs: &Dirs,
    target: &Path,
    payload: &PutPayload,
    naming: Naming,
) -> io::Result<()> {
    let mut staged = Staged::create(dirs, target)?;
    for chunk in payload {
        staged.file.write_all(chunk)?;
    }
    staged.name(naming)
}

impl Dirs {
    /// Makes a directory, and those above it, unless they exist; all are durable then.
    pub(super) fn make(&self, dir: &Path) -> io::Result<()> {
        if self.durable.lock().contains(dir) {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make(parent)?;
            let made = fs::create_dir(dir);
            if let Err(error) = &made
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return made;
            }
            match sync_dir(parent) {
                // Above the root there may be directories of others that we may only pass through.
                Err(error) if made.is_err() && error.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        self.durable.lock().insert(dir.to_owned());
        Ok(())
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Staged {
    fn create(dirs: &Dirs, target: &Path) -> io::Result<Self> {
        if let Some(parent) = target.parent() {
            dirs.make(parent)?;
        }
        let path = staged_name(target);
        let open = File::options().read(true).write(true).create_new(true).open(&path);
        let file = open.inspect_err(|error| {
            // Somebody has removed the directory; the next try makes it again.
            if error.kind() == io::ErrorKind::NotFound {
                dirs.durable.lock().clear();
            }
        })?;
        Ok(Self { file, path, target: target.to_owned() })
    }

    fn name(&self, naming: Naming) -> io::Result<()> {
        self.file.sync_all()?;
        let named = match naming {
            Naming::IfAbsent => fs::hard_link(&self.path, &self.target),
            Naming::Replace => fs::rename(&self.path, &self.target),
        };
        // Also when the name was taken: perhaps by an earlier try of the same writer, which will read
        // it back and take it for stored.
        let synced = self.target.parent().map_or(Ok(()), sync_dir);
        named.and(synced)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing under this name. A file left by a crash is hidden.
        let _ = fs::remove_file(&self.path);
    }
}

/// An object written in parts.
#[derive(Debug)]
pub(super) struct LocalUpload {
    staged: Option<Arc<Staged>>,
    offset: u64,
}

impl LocalUpload {
    pub(super) fn start(dirs: &Dirs, target: &Path) -> io::Result<Self> {
        Ok(Self { staged: Some(Arc::new(Staged::create(dirs, target)?)), offset: 0 })
    }

    fn staged(&self) -> Result<Arc<Staged>> {
        self.staged.clone().ok_or_else(|| {
            super::store_error("upload", io::Error::other("finished or aborted before"))
        })
    }
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut at = self.offset;
        self.offset += data.content_length() as u64;
        let staged = self.staged();
        Box::pin(async move {
            let staged = staged?;
            let name = staged.target.display().to_string();
            super::blocking(move || {
                for chunk in &data {
                    staged.file.write_all_at(chunk, at)?;
                    at += chunk.len() as u64;
                }
                Ok(())
            })
            .await
            .map_err(|error| super::store_error(&name, error))
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged()?;
        self.staged = None;
        let name = staged.target.display().to_string();
        super::blocking(move || staged.name(Naming::Replace))
            .await
            .map_err(|error| super::store_error(&name, error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged = None;
        Ok(())
    }
}
