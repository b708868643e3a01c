use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

use super::database::Database;
use super::queue::FlushQueue;
use super::state::GroupState;

/// State shared by the handles of a log store.
#[derive(Debug)]
pub(super) struct LogStoreContext {
    pub(super) database: Arc<Database>,
    pub(super) queue: Arc<FlushQueue>,
    pub(super) groups: Mutex<BTreeMap<GroupId, Arc<GroupState>>>,
    pub(super) pending_bytes: usize,
    pub(super) cache_bytes_per_group: usize,
}
