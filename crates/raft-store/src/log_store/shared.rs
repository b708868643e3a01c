use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

use super::database::Database;
use super::purge_points::PurgePoints;
use super::queue::FlushQueue;
use super::state::GroupState;

/// State shared by the handles of a log store.
#[derive(Debug)]
pub(super) struct LogStoreContext {
    pub(super) database: Arc<Database>,
    pub(super) queue: Arc<FlushQueue>,
    pub(super) groups: Mutex<BTreeMap<GroupId, Arc<GroupState>>>,
    /// Durable purge points, which compactions follow.
    pub(super) purge_points: Arc<PurgePoints>,
    /// Held while files are deleted, and while a removed group becomes unknown. In between, the log
    /// of the group could be created again below the purge point that the deletion follows.
    pub(super) reclaim_gate: tokio::sync::Mutex<()>,
    pub(super) pending_bytes: usize,
    pub(super) cache_bytes_per_group: usize,
}
