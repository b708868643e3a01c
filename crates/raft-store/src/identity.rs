//! A node's data directory: who the node is, and the log store in it.
//!
//! The directory holds a lock file, the file `identity`, and the log store with a second copy of
//! the identity in it. The *directory id* is made with the directory, and names the asker when the
//! node registers; the rest is *adopted* once, when the node has got its id. A directory whose two
//! copies do not agree was put together from two nodes: running it could answer for a node with a
//! log that is not its own, so it refuses, unless its log store is still empty.
//!
//! # Layout
//!
//! - `record`: what is stored, and its encoding; `agree`: the decision over the two copies.
//! - `lock`: one process for each directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewater_common::ids::{ClusterId, DirectoryId, NodeId};
use uuid::Uuid;

use crate::log_store::{LogStore, LogStoreOptions, StoreError};

mod agree;
mod lock;
mod record;

pub use record::{FORMAT_VERSION, Identity, Role};

use agree::{Agreement, agree};
use lock::DirectoryLock;
use record::Record;

const IDENTITY_FILE: &str = "identity";
const IDENTITY_KEY: &[u8] = b"identity";
const LOG_FOLDER: &str = "log";
const SNAPSHOT_FOLDER: &str = "snapshots";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It belongs to a node of another role.
    #[error("{path} belongs to a {found} node, not to a {wanted} node", path = path.display())]
    WrongRole {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: Role,
        /// Who asked.
        wanted: Role,
    },
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, not to cluster {wanted}: check the addresses of the \
         meta nodes, or use an empty directory",
        path = path.display()
    )]
    WrongCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Which cluster was met or named.
        wanted: ClusterId,
    },
    /// It belongs to another node of the same cluster.
    #[error("{path} belongs to node {found}, not to node {wanted}", path = path.display())]
    WrongNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Which node was named.
        wanted: NodeId,
    },
    /// Another process uses it.
    #[error("{path} is in use by {}", pid.map_or("another process".to_owned(), |pid| format!("process {pid}")), path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, as far as it is known.
        pid: Option<u32>,
    },
    /// It was written by a newer release.
    #[error(
        "{path} has format {found}, this release reads up to {supported}: use the newer release",
        path = path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that can be read.
        supported: u32,
    },
    /// The file and the copy in the log store name different nodes.
    #[error(
        "in {path} the file `identity` says {file}, the log store says {store}: the directory was \
         put together from two nodes",
        path = path.display()
    )]
    CopiesDiffer {
        /// The directory.
        path: PathBuf,
        /// What the file says.
        file: String,
        /// What the log store says.
        store: String,
    },
    /// One of the two copies is missing though the log store is not empty.
    #[error("{path} has logs, but its identity is missing in {missing}", path = path.display())]
    CopyMissing {
        /// The directory.
        path: PathBuf,
        /// Where it is missing: `the file identity` or `the log store`.
        missing: &'static str,
    },
    /// A copy cannot be decoded.
    #[error("the identity in {place} is damaged: {message}")]
    Damaged {
        /// Which copy.
        place: String,
        /// What does not fit.
        message: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The log store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A node's data directory, locked, with its log store open.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    record: Record,
    store: Arc<LogStore>,
    _lock: DirectoryLock,
}

impl DataDirectory {
    /// Locks a directory for a node of this role, opens its log store, and checks who the node is.
    /// An empty or missing directory gets a directory id. Blocking.
    pub fn open(
        path: impl Into<PathBuf>,
        role: Role,
        options: LogStoreOptions,
    ) -> Result<Self, IdentityError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        let lock = DirectoryLock::acquire(&path)?;
        let file = read_file(&path)?;
        // Before the log store is touched: a newer format may need a newer database.
        if let Some(file) = &file {
            check(&path, file, role)?;
        }
        let store = LogStore::open(&path.join(LOG_FOLDER), options)?;
        let copy = read_copy(&store)?;
        if let Some(copy) = &copy {
            check(&path, copy, role)?;
        }
        let record = match agree(file, copy, store.is_empty()) {
            Agreement::Fresh => {
                let record = Record::fresh(role, DirectoryId(Uuid::new_v4()));
                write_file(&path, &record)?;
                record
            }
            Agreement::Agreed(record) => record,
            Agreement::RewriteFile(record) => {
                write_file(&path, &record)?;
                record
            }
            Agreement::RewriteCopy(record) => {
                write_copy(&store, &record)?;
                record
            }
            Agreement::Differ { file, store } => {
                let (file, store) = (file.to_string(), store.to_string());
                return Err(IdentityError::CopiesDiffer { path, file, store });
            }
            Agreement::Missing(missing) => {
                return Err(IdentityError::CopyMissing { path, missing });
            }
        };
        Ok(Self { path, record, store, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log store in it.
    pub fn log_store(&self) -> &Arc<LogStore> {
        &self.store
    }

    /// Named when the node registers, so that asking again gets the same node id.
    pub fn directory_id(&self) -> DirectoryId {
        self.record.directory_id
    }

    /// Who the node is; `None` until it has adopted an identity.
    pub fn identity(&self) -> Option<Identity> {
        self.record.identity()
    }

    /// A folder for the snapshots of a group, made when it is missing. Blocking.
    pub fn snapshot_folder(
        &self,
        group: tidewater_common::ids::GroupId,
    ) -> Result<PathBuf, IdentityError> {
        let folder = self.path.join(SNAPSHOT_FOLDER).join(group.to_string());
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        sync_folder(&self.path.join(SNAPSHOT_FOLDER))?;
        sync_folder(&self.path)?;
        Ok(folder)
    }

    /// Refuses to run against another cluster than the one adopted. Nothing to refuse before.
    pub fn check_cluster(&self, cluster_id: ClusterId) -> Result<(), IdentityError> {
        match self.record.cluster_id {
            Some(found) if found != cluster_id => Err(IdentityError::WrongCluster {
                path: self.path.clone(),
                found,
                wanted: cluster_id,
            }),
            _ => Ok(()),
        }
    }

    /// Makes the node what it was told to be, durably and once; adopting the same again changes
    /// nothing. Blocking.
    pub fn adopt(
        &mut self,
        cluster_id: ClusterId,
        node_id: NodeId,
    ) -> Result<Identity, IdentityError> {
        self.check_cluster(cluster_id)?;
        if let Some(found) = self.record.node_id
            && found != node_id
        {
            let path = self.path.clone();
            return Err(IdentityError::WrongNode { path, found, wanted: node_id });
        }
        let record = self.record.adopted(cluster_id, node_id);
        if record != self.record {
            write_file(&self.path, &record)?;
            // A crash here leaves the file alone with an empty log store: the copy is made at the
            // next start.
            write_copy(&self.store, &record)?;
            self.record = record;
        }
        Ok(Identity {
            cluster_id,
            node_id,
            role: self.record.role,
            directory_id: self.record.directory_id,
        })
    }
}

fn check(path: &Path, record: &Record, role: Role) -> Result<(), IdentityError> {
    if record.format > FORMAT_VERSION {
        return Err(IdentityError::NewerFormat {
            path: path.to_owned(),
            found: record.format,
            supported: FORMAT_VERSION,
        });
    }
    if record.role != role {
        return Err(IdentityError::WrongRole {
            path: path.to_owned(),
            found: record.role,
            wanted: role,
        });
    }
    Ok(())
}

fn read_file(folder: &Path) -> Result<Option<Record>, IdentityError> {
    let path = folder.join(IDENTITY_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    Record::decode(&bytes, folder, &path.display().to_string()).map(Some)
}

fn write_file(folder: &Path, record: &Record) -> Result<(), IdentityError> {
    let path = folder.join(IDENTITY_FILE);
    let temporary = folder.join("identity.partial");
    let write = || -> io::Result<()> {
        fs::write(&temporary, record.encode())?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(io_error("write", &path))?;
    sync_folder(folder)
}

fn read_copy(store: &LogStore) -> Result<Option<Record>, IdentityError> {
    let place = format!("the log store at {}", store.db().path().display());
    match store.db().read(|db| db.get(IDENTITY_KEY))? {
        Some(bytes) => Record::decode(&bytes, store.db().path(), &place).map(Some),
        None => Ok(None),
    }
}

fn write_copy(store: &LogStore, record: &Record) -> Result<(), IdentityError> {
    let bytes = record.encode();
    store.write_synced(|_, batch| {
        batch.put(IDENTITY_KEY, &bytes);
        Ok(())
    })?;
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), IdentityError> {
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(io_error("sync", folder))
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
