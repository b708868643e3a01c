//! Data directory of a node: the node's identity and its log store.
//!
//! The directory holds a lock file, the file `identity`, and the log store with a second copy of
//! the identity in it. The *directory id* is created with the directory, and identifies the node
//! when it registers. The rest of the identity is *adopted* once, when the node has received its
//! id. A directory whose two copies differ was assembled from two nodes: it could answer for a node
//! with a log of another one. Opening it therefore fails, unless its log store is still empty.
//!
//! # Layout
//!
//! - `record`: the stored record and its encoding; `agree`: comparison of the two copies.
//! - `lock`: the lock that admits one process per directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewater_common::file::{self, FileError};
use tidewater_common::ids::{BootNumber, ClusterId, DirectoryId, NodeId};
use uuid::Uuid;

use crate::log_store::{LogStore, LogStoreOptions, StoreError};

mod agree;
mod lock;
mod record;

pub use record::{FORMAT_VERSION, Identity, Role};

use agree::{CopyComparison, compare_copies};
use lock::DirectoryLock;
use record::IdentityRecord;

const IDENTITY_FILE: &str = "identity";
/// Maximum size of the identity file in bytes; a record has a few hundred.
const MAX_IDENTITY_BYTES: u64 = 16 << 10;
const IDENTITY_KEY: &[u8] = b"identity";
const LOG_DIR: &str = "log";
const SNAPSHOT_DIR: &str = "snapshots";

/// Reason why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory belongs to a node of another role.
    #[error("{path} belongs to a {found} node, not to a {expected} node", path = path.display())]
    WrongRole {
        /// Path of the directory.
        path: PathBuf,
        /// Role stored in the directory.
        found: Role,
        /// Role of this node.
        expected: Role,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, not to cluster {expected}: check the addresses of the \
         meta nodes, or use an empty directory",
        path = path.display()
    )]
    WrongCluster {
        /// Path of the directory.
        path: PathBuf,
        /// Cluster stored in the directory.
        found: ClusterId,
        /// Cluster that this node joins.
        expected: ClusterId,
    },
    /// The directory belongs to another node of the same cluster.
    #[error("{path} belongs to node {found}, not to node {expected}", path = path.display())]
    WrongNode {
        /// Path of the directory.
        path: PathBuf,
        /// Node stored in the directory.
        found: NodeId,
        /// Id assigned to this node.
        expected: NodeId,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by {}", pid.map_or("another process".to_owned(), |pid| format!("process {pid}")), path = path.display())]
    InUse {
        /// Path of the directory.
        path: PathBuf,
        /// Id of the process, if known.
        pid: Option<u32>,
    },
    /// A newer release wrote the directory.
    #[error(
        "{path} has format {found}, this release reads up to {supported}: use the newer release",
        path = path.display()
    )]
    NewerFormat {
        /// Path of the directory.
        path: PathBuf,
        /// Format stored in the directory.
        found: u32,
        /// Newest format that this release reads.
        supported: u32,
    },
    /// The file and the copy in the log store name different nodes.
    #[error(
        "in {path} the file `identity` names {file}, the log store names {store}: the directory \
         mixes the files of two nodes",
        path = path.display()
    )]
    CopiesDiffer {
        /// Path of the directory.
        path: PathBuf,
        /// Node named by the file.
        file: String,
        /// Node named by the log store.
        store: String,
    },
    /// One of the two copies is missing though the log store is not empty.
    #[error("{path} has logs, but its identity is missing in {missing}", path = path.display())]
    CopyMissing {
        /// Path of the directory.
        path: PathBuf,
        /// Location of the missing copy: the file or the log store.
        missing: &'static str,
    },
    /// A copy cannot be decoded.
    #[error("the identity in {place} is damaged: {message}")]
    Damaged {
        /// Location of the copy.
        place: String,
        /// Error of the decoder.
        message: String,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// Operation that failed, as a verb.
        action: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
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
    record: IdentityRecord,
    store: Arc<LogStore>,
    _lock: DirectoryLock,
}

impl DataDirectory {
    /// Locks a directory for a node of this role, opens its log store, and checks its identity.
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
        // Checked before the log store is opened: a newer format may need a newer database.
        if let Some(file) = &file {
            check_record(&path, file, role)?;
        }
        let store = LogStore::open(&path.join(LOG_DIR), options)?;
        let copy = read_copy(&store)?;
        if let Some(copy) = &copy {
            check_record(&path, copy, role)?;
        }
        let record = match compare_copies(file, copy, store.is_empty()) {
            CopyComparison::Fresh => {
                let record = IdentityRecord::fresh(role, DirectoryId(Uuid::new_v4()));
                write_file(&path, &record)?;
                record
            }
            CopyComparison::Agreed(record) => record,
            CopyComparison::RewriteFile(record) => {
                write_file(&path, &record)?;
                record
            }
            CopyComparison::RewriteCopy(record) => {
                write_copy(&store, &record)?;
                record
            }
            CopyComparison::Differ { file, store } => {
                let file = file.to_string();
                let store = store.to_string();
                return Err(IdentityError::CopiesDiffer { path, file, store });
            }
            CopyComparison::Missing(missing) => {
                return Err(IdentityError::CopyMissing { path, missing });
            }
        };
        Ok(Self { path, record, store, _lock: lock })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the log store of the directory.
    pub fn log_store(&self) -> &Arc<LogStore> {
        &self.store
    }

    /// Returns the directory id. The node sends it when it registers, so that a repeated
    /// registration gets the same node id.
    pub fn directory_id(&self) -> DirectoryId {
        self.record.directory_id
    }

    /// Returns the node's identity; `None` until it is adopted.
    pub fn identity(&self) -> Option<Identity> {
        self.record.identity()
    }

    /// Returns the number of the node's last counted start.
    pub fn boot(&self) -> BootNumber {
        self.record.boot
    }

    /// Counts a start of the node, durably. Called once, before the node registers: the meta service
    /// accepts each number from one process only, and refuses a second process with a copy of the
    /// directory, and a directory that was restored to an earlier state. A crash before the registration
    /// leaves a number unused. Blocking.
    pub fn count_start(&mut self) -> Result<BootNumber, IdentityError> {
        let record = self.record.started();
        write_file(&self.path, &record)?;
        self.record = record;
        Ok(self.record.boot)
    }

    /// Returns the directory for the snapshots of a group, creating it if missing. Blocking.
    pub fn snapshot_dir(
        &self,
        group: tidewater_common::ids::GroupId,
    ) -> Result<PathBuf, IdentityError> {
        let dir = self.path.join(SNAPSHOT_DIR).join(group.to_string());
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        sync_dir(&self.path.join(SNAPSHOT_DIR))?;
        sync_dir(&self.path)?;
        Ok(dir)
    }

    /// Checks that the node belongs to this cluster. Succeeds until a cluster is adopted.
    pub fn check_cluster(&self, cluster_id: ClusterId) -> Result<(), IdentityError> {
        match self.record.cluster_id {
            Some(found) if found != cluster_id => Err(IdentityError::WrongCluster {
                path: self.path.clone(),
                found,
                expected: cluster_id,
            }),
            _ => Ok(()),
        }
    }

    /// Stores the node's identity, durably and once. Adopting the same identity again changes
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
            return Err(IdentityError::WrongNode { path, found, expected: node_id });
        }
        let record = self.record.with_identity(cluster_id, node_id);
        if record != self.record {
            write_file(&self.path, &record)?;
            // After a crash at this point only the file exists, and the log store is empty. The
            // next start writes the copy.
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

fn check_record(path: &Path, record: &IdentityRecord, role: Role) -> Result<(), IdentityError> {
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
            expected: role,
        });
    }
    Ok(())
}

fn read_file(dir: &Path) -> Result<Option<IdentityRecord>, IdentityError> {
    let path = dir.join(IDENTITY_FILE);
    let bytes = match file::read_file(&path, MAX_IDENTITY_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(FileError::Io { source, .. }) => return Err(io_error("read", &path)(source)),
        Err(error) => {
            return Err(IdentityError::Damaged {
                place: path.display().to_string(),
                message: error.to_string(),
            });
        }
    };
    IdentityRecord::decode(&bytes, dir, &path.display().to_string()).map(Some)
}

fn write_file(dir: &Path, record: &IdentityRecord) -> Result<(), IdentityError> {
    let path = dir.join(IDENTITY_FILE);
    let temporary = dir.join("identity.partial");
    let write = || -> io::Result<()> {
        fs::write(&temporary, record.encode())?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(io_error("write", &path))?;
    sync_dir(dir)
}

fn read_copy(store: &LogStore) -> Result<Option<IdentityRecord>, IdentityError> {
    let place = format!("the log store at {}", store.db().path().display());
    match store.db().read(|db| db.get(IDENTITY_KEY))? {
        Some(bytes) => IdentityRecord::decode(&bytes, store.db().path(), &place).map(Some),
        None => Ok(None),
    }
}

fn write_copy(store: &LogStore, record: &IdentityRecord) -> Result<(), IdentityError> {
    let bytes = record.encode();
    store.write_synced(|_, batch| {
        batch.put(IDENTITY_KEY, &bytes);
        Ok(())
    })?;
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), IdentityError> {
    fs::File::open(dir).and_then(|file| file.sync_all()).map_err(io_error("sync", dir))
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
