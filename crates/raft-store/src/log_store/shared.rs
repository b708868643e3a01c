use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

use super::database::Database;
use super::queue::Queue;
use super::state::GroupState;

/// What the handles of a log store have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Arc<Database>,
    pub(super) queue: Arc<Queue>,
    pub(super) groups: Mutex<BTreeMap<GroupId, Arc<GroupState>>>,
    pub(super) pending_bytes: usize,
    pub(super) cache_bytes_per_group: usize,
}
