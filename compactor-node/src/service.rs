//! Service `Compaction`: what the owners of regions ask. A file per call.

mod close;
mod compact;
mod list;
mod open;

use std::sync::Arc;

use tidewater_common::header::check_header;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::compaction_server::{Compaction, CompactionServer};
use tidewater_proto::compaction::v1::*;
use tidewater_proto::v1::CallHeader;
use tonic::{Request, Response, Status};

use crate::meters;
use crate::parts::NodeParts;

#[cfg(test)]
mod tests;

/// Bytes of a request: a schema, 256 hooks of 16 KiB each, or the names of 4,096 files with their clips.
const REQUEST_BYTES: usize = 8 << 20;
/// Bytes of an event: a commit describes every file and its columns.
const ANSWER_BYTES: usize = 64 << 20;

/// See the module's head.
#[derive(Debug, Clone)]
pub(crate) struct CompactionService {
    parts: Arc<NodeParts>,
}

impl CompactionService {
    /// For what a node has.
    pub(crate) fn new(parts: Arc<NodeParts>) -> Self {
        Self { parts }
    }

    /// The gRPC service.
    pub(crate) fn into_server(self) -> CompactionServer<Self> {
        CompactionServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES)
            .max_encoding_message_size(ANSWER_BYTES)
    }

    fn check(&self, header: Option<&CallHeader>) -> Result<(), Refusal> {
        check_header(self.parts.cluster, self.parts.node, header)
    }
}

fn answer<T>(result: Result<T, Refusal>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|refusal| {
        meters::refused(refusal.reason);
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
            Ok(()) => open::call(&self.parts, request).await,
            Err(refusal) => Err(refusal),
        };
        answer(opened)
    }

    type CompactStream = compact::EventStream;

    async fn compact(
        &self,
        request: Request<CompactRequest>,
    ) -> Result<Response<Self::CompactStream>, Status> {
        let request = request.into_inner();
        let begun = match self.check(request.header.as_ref()) {
            Ok(()) => compact::call(&self.parts, request).await,
            Err(refusal) => Err(refusal),
        };
        answer(begun)
    }

    async fn cancel_compaction(
        &self,
        request: Request<CancelCompactionRequest>,
    ) -> Result<Response<CancelCompactionResponse>, Status> {
        let request = request.into_inner();
        let checked = self.check(request.header.as_ref());
        answer(checked.and_then(|()| close::cancel(&self.parts, &request)))
    }

    async fn list_compactions(
        &self,
        request: Request<ListCompactionsRequest>,
    ) -> Result<Response<ListCompactionsResponse>, Status> {
        let checked = self.check(request.into_inner().header.as_ref());
        answer(checked.map(|()| list::call(&self.parts)))
    }

    async fn close_compaction_region(
        &self,
        request: Request<CloseCompactionRegionRequest>,
    ) -> Result<Response<CloseCompactionRegionResponse>, Status> {
        let request = request.into_inner();
        let checked = self.check(request.header.as_ref());
        answer(checked.map(|()| close::call(&self.parts, &request)))
    }
}
