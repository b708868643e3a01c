//! Service `Compaction`: calls of the owners of regions. One file per call.

mod close;
mod compact;
mod list;
mod open;

use std::sync::Arc;

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::header::{check_header, is_from_node};
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::compaction_server::{Compaction, CompactionServer};
use tidewater_proto::compaction::v1::*;
use tidewater_proto::v1::CallHeader;
use tonic::{Request, Response, Status};

use crate::context::CompactorContext;
use crate::meters;

#[cfg(test)]
mod tests;

/// Maximum size of a request in bytes: a schema, 256 hooks of 16 KiB each, or the names of 4,096
/// files with their clips.
const REQUEST_BYTES: usize = 8 << 20;
/// Maximum size of an event in bytes: a commit describes every file and its columns.
const EVENT_BYTES: usize = 64 << 20;

/// The gRPC service `Compaction` of a node.
#[derive(Debug, Clone)]
pub(crate) struct CompactionService {
    context: Arc<CompactorContext>,
    calls: RecordedCalls,
}

impl CompactionService {
    /// Creates the service for a node.
    pub(crate) fn new(context: Arc<CompactorContext>) -> Self {
        let calls = context.events.admin_calls();
        Self { context, calls }
    }

    /// Wraps the service for tonic, with its message limits.
    pub(crate) fn into_server(self) -> CompactionServer<Self> {
        CompactionServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES)
            .max_encoding_message_size(EVENT_BYTES)
    }

    fn check(&self, header: Option<&CallHeader>) -> Result<(), Refusal> {
        check_header(self.context.cluster, self.context.node, header)
    }
}

fn respond<T>(result: Result<T, Refusal>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|refusal| {
        meters::call_refused(refusal.reason);
        refusal.into()
    })
}

#[tonic::async_trait]
impl Compaction for CompactionService {
    async fn open_compaction_region(
        &self,
        request: Request<OpenCompactionRegionRequest>,
    ) -> Result<Response<OpenCompactionRegionResponse>, Status> {
        let request = request.into_inner();
        let opened = match self.check(request.header.as_ref()) {
            Ok(()) => open::call(&self.context, request).await,
            Err(refusal) => Err(refusal),
        };
        respond(opened)
    }

    type CompactStream = compact::EventStream;

    async fn compact(
        &self,
        request: Request<CompactRequest>,
    ) -> Result<Response<Self::CompactStream>, Status> {
        let request = request.into_inner();
        let started = match self.check(request.header.as_ref()) {
            Ok(()) => compact::call(&self.context, request).await,
            Err(refusal) => Err(refusal),
        };
        respond(started)
    }

    async fn cancel_compaction(
        &self,
        request: Request<CancelCompactionRequest>,
    ) -> Result<Response<CancelCompactionResponse>, Status> {
        let mut call = self.calls.begin(&request);
        let request = request.into_inner();
        // Owners cancel their jobs by the same call.
        if is_from_node(request.header.as_ref()) {
            call.forget();
        }
        let checked = self.check(request.header.as_ref());
        respond(call.end(checked.and_then(|()| close::cancel(&self.context, &request))))
    }

    async fn list_compactions(
        &self,
        request: Request<ListCompactionsRequest>,
    ) -> Result<Response<ListCompactionsResponse>, Status> {
        let checked = self.check(request.into_inner().header.as_ref());
        respond(checked.map(|()| list::call(&self.context)))
    }

    async fn close_compaction_region(
        &self,
        request: Request<CloseCompactionRegionRequest>,
    ) -> Result<Response<CloseCompactionRegionResponse>, Status> {
        let request = request.into_inner();
        let checked = self.check(request.header.as_ref());
        respond(checked.map(|()| close::call(&self.context, &request)))
    }
}
