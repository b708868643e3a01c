//! `Data`: writes are acknowledged and forgotten, reads find no rows.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::data_server::Data;
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status};

use crate::stub::counters::StubCounters;
use crate::stub::node_core::NodeCore;

/// Ordinals of writes in one entry: sequences are multiples of it.
const ORDINALS: u64 = 65_536;

/// The service of one node.
#[derive(Debug, Clone)]
pub(in crate::stub) struct DataService {
    pub(in crate::stub) node: Arc<NodeCore>,
}

impl DataService {
    /// Takes a write as a data node does: its leader only, and with the schema version of its region.
    fn take(&self, write: &v1::WriteRequest) -> Result<v1::WriteResponse, Refusal> {
        let node = &self.node;
        let region = RegionId(write.region_id);
        let (index, known) = node.world.write(node.node, GroupId(write.group_id), region)?;
        check_schema(write.schema_version, known.schema_version)
            .inspect_err(|_| StubCounters::add(&node.world.counters.stale_writes))?;
        StubCounters::add(&node.world.counters.writes);
        Ok(v1::WriteResponse {
            sequence: index * ORDINALS,
            rows_applied: write.row_count,
            repeated: false,
        })
    }
}

/// Refuses a write with another schema version than the region has, or had before its last alteration.
fn check_schema(named: u32, known: u32) -> Result<(), Refusal> {
    if named.saturating_add(1) == known {
        return Ok(());
    }
    match named.cmp(&known) {
        std::cmp::Ordering::Less => Err(Refusal::new(
            Reason::SchemaVersionStale,
            format!("the region has schema version {known}, the write {named}"),
        )),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Refusal::new(
            Reason::SchemaVersionBehind,
            format!("the region has yet to apply schema version {named}"),
        )
        .retry_after(Duration::from_millis(100))),
    }
}

fn nothing_stored() -> Refusal {
    Refusal::new(Reason::Internal, "a stub node stores no files")
}

#[tonic::async_trait]
impl Data for DataService {
    type ScanStream = BoxStream<'static, Result<v1::ScanResponse, Status>>;

    async fn write(
        &self,
        request: Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        self.node.ready().await;
        Ok(Response::new(self.take(request.get_ref())?))
    }

    async fn scan(
        &self,
        request: Request<v1::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        self.node.ready().await;
        let group = GroupId(request.get_ref().group_id);
        self.node.world.require_leader(self.node.node, group)?;
        let end = v1::ScanResponse { done: true, ..v1::ScanResponse::default() };
        Ok(Response::new(stream::iter([Ok(end)]).boxed()))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        self.node.ready().await;
        self.node.world.require_leader(self.node.node, GroupId(request.get_ref().group_id))?;
        Ok(Response::new(v1::GetResponse::default()))
    }

    async fn write_files(
        &self,
        _request: Request<v1::WriteFilesRequest>,
    ) -> Result<Response<v1::WriteFilesResponse>, Status> {
        Err(nothing_stored().into())
    }

    async fn adopt_files(
        &self,
        _request: Request<v1::AdoptFilesRequest>,
    ) -> Result<Response<v1::AdoptFilesResponse>, Status> {
        Err(nothing_stored().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_with_other_schema_versions_are_refused() {
        let reason = |named, known| check_schema(named, known).err().map(|refusal| refusal.reason);
        assert_eq!(reason(2, 2), None);
        assert_eq!(reason(1, 2), None);
        assert_eq!(reason(1, 3), Some(Reason::SchemaVersionStale));
        assert_eq!(reason(3, 2), Some(Reason::SchemaVersionBehind));
    }
}
