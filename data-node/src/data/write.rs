//! `Write`: checks, admission, then the group's log.

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{WriteRequest, WriteResponse};

use super::created::check_created;
use super::format;
use crate::group::{admission, refusals};
use crate::groups::Groups;

pub(super) async fn call(
    groups: &Groups,
    mut write: WriteRequest,
) -> Result<WriteResponse, Refusal> {
    let options = &groups.context().options;
    let group = GroupId(write.group_id);
    let replica = groups.get(group)?;
    replica.require_leader()?;
    admission::check_disk(&groups.disk())?;
    let hosted = replica.region(RegionId(write.region_id))?;
    check_created(&groups.context().catalog, &hosted.descriptor)?;
    let checked = format::make_compact(&hosted.descriptor, &mut write)
        .and_then(|()| admission::check(&hosted.descriptor, &options.write, &write));
    if let Err(refusal) = checked {
        return match replica.shared.earlier_outcome(&write) {
            Some(outcome) => outcome.into_result(),
            None => Err(refusal),
        };
    }
    let admitted = replica
        .shared
        .memory()
        .admit(write.rows.len() as u64, options.memory_wait)
        .await
        .map_err(|error| Refusal::from(&error))?;
    tokio::time::timeout(options.write_deadline, replica.batcher.write(write, admitted))
        .await
        .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a write", group)))
}
