//! Openraft's storage suite on the real state machine, with the real log in the same database.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tidewater_common::ids::GroupId;
use tidewater_raft_store::{GroupLog, TypeConfig};

use super::{MetaMachine, machine, store};

struct Builder;

/// Keeps the directory while a test runs; the machine keeps the log store.
struct DirGuard {
    _dir: TempDir,
}

impl StoreBuilder<TypeConfig, GroupLog, MetaMachine, DirGuard> for Builder {
    async fn build(&self) -> Result<(DirGuard, GroupLog, MetaMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let log = store(dir.path());
        let machine = machine(dir.path(), &log);
        Ok((DirGuard { _dir: dir }, log.group(GroupId::META), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_machine_passes_openrafts_storage_suite() {
    Suite::test_all(Builder).await.unwrap();
}
