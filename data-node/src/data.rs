//! Service `Data`: reads, writes and bulk loads of rows. One file per call.

pub(crate) mod as_of;
mod callers;
mod created;
mod files;
mod format;
mod get;
mod openings;
mod paced;
mod scan;
mod stale;
#[cfg(test)]
mod tests;
mod write;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tidewater_common::ids::{RegionId, Serial};
use tidewater_common::read_arguments::MAX_REQUEST_BYTES;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::data_server::{Data, DataServer};
use tidewater_proto::v1::{
    AdoptFilesRequest, AdoptFilesResponse, GetRequest, GetResponse, Reason, ScanRequest,
    ScanResponse, WriteFilesRequest, WriteFilesResponse, WriteRequest, WriteResponse,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use self::callers::ScanLimits;
use self::openings::OpeningLimits;
pub use self::paced::PacedScans;
use self::stale::CallTarget;
use crate::group::producers::OPENING;
use crate::groups::Groups;
use crate::node_events::{NodeEvents, Operation, Room};

/// Largest message in either direction, in bytes.
pub const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The gRPC service `Data` of a node.
#[derive(Debug, Clone)]
pub struct DataService {
    groups: Arc<Groups>,
    scans: Arc<ScanLimits>,
    files: Arc<Semaphore>,
    openings: Arc<OpeningLimits>,
    closing: CancellationToken,
}

impl DataService {
    /// Creates the service for a node's groups; it refuses new calls once `closing` is cancelled.
    pub fn new(groups: Arc<Groups>, closing: CancellationToken) -> Self {
        let context = groups.context();
        let memory = context.env.scan_memory.clone();
        let scans = Arc::new(ScanLimits::new(context.options.open_scans, memory));
        let files = Arc::new(Semaphore::new(files::CONCURRENT_CALLS));
        Self { groups, scans, files, openings: Arc::default(), closing }
    }

    /// Wraps the service for tonic, with its message limits.
    pub fn into_server(self) -> PacedScans<DataServer<Self>> {
        let server = |request_bytes| {
            DataServer::new(self.clone())
                .max_decoding_message_size(request_bytes)
                .max_encoding_message_size(MESSAGE_BYTES)
        };
        let scan_lifetime = self.groups.context().options.scan_lifetime;
        PacedScans::new(server(MESSAGE_BYTES), server(MAX_REQUEST_BYTES), scan_lifetime)
    }

    fn check_open(&self) -> Result<(), Refusal> {
        if self.closing.is_cancelled() {
            return Err(Refusal::new(
                Reason::ShuttingDown,
                "this node is shutting down: retry until another node leads the group",
            )
            .retry_after(Duration::from_millis(200)));
        }
        Ok(())
    }

    fn events(&self) -> &NodeEvents {
        &self.groups.context().events
    }

    /// Records a call that began at a time of the events' clock, if it was slow or refused for lack of room.
    fn record_call<T>(
        &self,
        operation: Operation,
        begun: Duration,
        target: CallTarget,
        result: &Result<T, Refusal>,
    ) {
        self.events().record_if_slow(operation, begun, || target.dir(&self.groups));
        self.count_refusal(Room::from_call, target, result);
    }

    /// Counts a call that was refused for lack of room. `room_of` returns the resource.
    fn count_refusal<T>(
        &self,
        room_of: fn(Reason) -> Option<Room>,
        target: CallTarget,
        result: &Result<T, Refusal>,
    ) {
        let Err(refusal) = result else { return };
        if let Some(room) = room_of(refusal.reason) {
            self.events().count_refusal(room, target.dir(&self.groups), &refusal.message);
        }
    }

    /// Adds the state of the region to an RPC error for a stale route or schema.
    fn add_hint<T>(&self, target: CallTarget, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.map_err(|refusal| stale::with_hint(&self.groups, target, refusal))
    }
}

type ScanStream = Pin<Box<dyn Stream<Item = Result<ScanResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Data for DataService {
    type ScanStream = ScanStream;

    async fn write(
        &self,
        request: Request<WriteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        self.check_open()?;
        let peer = request.remote_addr();
        let write = request.into_inner();
        if Serial(write.serial) == OPENING {
            self.openings.count(peer, RegionId(write.region_id), Instant::now())?;
        }
        let target = CallTarget::new(write.group_id, write.region_id);
        let begun = self.events().now();
        let written = write::call(&self.groups, write).await;
        self.record_call(Operation::Write, begun, target, &written);
        Ok(Response::new(self.add_hint(target, written)?))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanStream>, Status> {
        self.check_open()?;
        let peer = request.remote_addr();
        let request = request.into_inner();
        let target = CallTarget::new(request.group_id, request.region_id);
        let stream = scan::call(&self.groups, &self.scans, peer, request).await;
        Ok(Response::new(self.add_hint(target, stream)?))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.check_open()?;
        let request = request.into_inner();
        let target = CallTarget::new(request.group_id, request.region_id);
        let begun = self.events().now();
        let found = get::call(&self.groups, request).await;
        self.record_call(Operation::Get, begun, target, &found);
        Ok(Response::new(self.add_hint(target, found)?))
    }

    async fn write_files(
        &self,
        request: Request<WriteFilesRequest>,
    ) -> Result<Response<WriteFilesResponse>, Status> {
        self.check_open()?;
        let request = request.into_inner();
        let target = CallTarget::new(request.group_id, request.region_id);
        let written = files::write(&self.groups, &self.files, request).await;
        self.count_refusal(Room::from_file_call, target, &written);
        Ok(Response::new(self.add_hint(target, written)?))
    }

    async fn adopt_files(
        &self,
        request: Request<AdoptFilesRequest>,
    ) -> Result<Response<AdoptFilesResponse>, Status> {
        self.check_open()?;
        let request = request.into_inner();
        let target = CallTarget::new(request.group_id, request.region_id);
        let adopted = files::adopt(&self.groups, &self.files, request).await;
        self.count_refusal(Room::from_file_call, target, &adopted);
        Ok(Response::new(self.add_hint(target, adopted)?))
    }
}
