use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tidewater_common::ids::GroupId;

use super::{GroupLog, open};
use crate::log_store::LogStore;
use crate::testing::machine::TestStateMachine;
use crate::types::TypeConfig;

struct LogBuilder;

/// Keeps directory and store until the end of a test.
struct Guard {
    _store: std::sync::Arc<LogStore>,
    _dir: TempDir,
}

impl StoreBuilder<TypeConfig, GroupLog, TestStateMachine, Guard> for LogBuilder {
    async fn build(&self) -> Result<(Guard, GroupLog, TestStateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let store = open(&dir.path().join("log"));
        let log = store.group(GroupId(3));
        let machine = TestStateMachine::new(dir.path());
        Ok((Guard { _store: store, _dir: dir }, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_storage_suite_passes() {
    Suite::test_all(LogBuilder).await.unwrap();
}
