//! Writes a file so that its name appears only after its content is on disk.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use parking_lot::Mutex;

/// The way in which a staged file gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Fails with `AlreadyExists` when the name is taken.
    IfAbsent,
    /// Replaces an existing file.
    Replace,
}

/// A file without its final name; removed on drop unless it was named.
#[derive(Debug)]
struct StagedFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

/// Returns a name that listings hide: the store skips `#<digits>` at the end.
pub(super) fn staged_name(target: &Path) -> PathBuf {
    let number = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut name = target.as_os_str().to_owned();
    name.push(format!("#{number}"));
    name.into()
}

/// Directories that are known to be durable, each with all its parents.
///
/// An existing directory need not be durable: its creator may not have synced the parent yet. In a
/// power cut it would disappear together with files that others have put there.
#[derive(Debug, Default)]
pub(super) struct DurableDirs {
    durable: Mutex<HashSet<PathBuf>>,
}

/// Writes a whole file; it is durable when this returns.
pub(super) fn put(
    dirs: &DurableDirs,
    target: &Path,
    payload: &PutPayload,
    naming: Naming,
) -> io::Result<()> {
    let mut staged = StagedFile::create(dirs, target)?;
    for chunk in payload {
        staged.file.write_all(chunk)?;
    }
    staged.assign_name(naming)
}

impl DurableDirs {
    /// Creates a directory and its parents unless they exist; all are durable afterwards.
    pub(super) fn create(&self, dir: &Path) -> io::Result<()> {
        if self.durable.lock().contains(dir) {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.create(parent)?;
            let created = fs::create_dir(dir);
            if let Err(error) = &created
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return created;
            }
            match sync_dir(parent) {
                // Directories above the root may belong to other users and only allow traversal.
                Err(error)
                    if created.is_err() && error.kind() == io::ErrorKind::PermissionDenied => {}
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

impl StagedFile {
    fn create(dirs: &DurableDirs, target: &Path) -> io::Result<Self> {
        if let Some(parent) = target.parent() {
            dirs.create(parent)?;
        }
        let path = staged_name(target);
        let open = File::options().read(true).write(true).create_new(true).open(&path);
        let file = open.inspect_err(|error| {
            // The directory was removed; the next attempt creates it again.
            if error.kind() == io::ErrorKind::NotFound {
                dirs.durable.lock().clear();
            }
        })?;
        Ok(Self { file, path, target: target.to_owned() })
    }

    fn assign_name(&self, naming: Naming) -> io::Result<()> {
        self.file.sync_all()?;
        let named = match naming {
            Naming::IfAbsent => fs::hard_link(&self.path, &self.target),
            Naming::Replace => fs::rename(&self.path, &self.target),
        };
        // Also when the name was taken, perhaps by an earlier attempt of the same writer, which
        // will read the object back and treat it as stored.
        let synced = self.target.parent().map_or(Ok(()), sync_dir);
        named.and(synced)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // After a rename the staged name does not exist. A file left by a crash is hidden.
        let _ = fs::remove_file(&self.path);
    }
}

/// An upload in parts.
#[derive(Debug)]
pub(super) struct LocalUpload {
    staged: Option<Arc<StagedFile>>,
    offset: u64,
}

impl LocalUpload {
    pub(super) fn start(dirs: &DurableDirs, target: &Path) -> io::Result<Self> {
        Ok(Self { staged: Some(Arc::new(StagedFile::create(dirs, target)?)), offset: 0 })
    }

    fn staged(&self) -> Result<Arc<StagedFile>> {
        self.staged.clone().ok_or_else(|| {
            super::store_error("upload", io::Error::other("the upload was finished or aborted"))
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
        super::blocking(move || staged.assign_name(Naming::Replace))
            .await
            .map_err(|error| super::store_error(&name, error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged = None;
        Ok(())
    }
}
