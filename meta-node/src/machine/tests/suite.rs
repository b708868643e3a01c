//! Openraft's storage suite on the real state machine, with the real log in the same database.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tidewater_common::ids::GroupId;
use tidewater_raft_store::{GroupLog, TypeConfig};

use super::{MetaMachine, machine, store};

struct Builder;

/// Keeps the directory while a test runs; the machine keeps the log store.
struct Guard {
    _folder: TempDir,
}

impl StoreBuilder<TypeConfig, GroupLog, MetaMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, GroupLog, MetaMachine), StorageError<TypeConfig>> {
        let folder = TempDir::new().unwrap();
        let log = store(folder.path());
        let machine = machine(folder.path(), &log);
        Ok((Guard { _folder: folder }, log.group(GroupId::META), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_machine_passes_openrafts_storage_suite() {
    Suite::test_all(Builder).await.unwrap();
}
