//! Service `RefreshWork`: the work of this node in refreshes. It lists sources, loads splits into files of regions, and
//! merges the staged files of the regions that it leads.
//!
//! Nothing of a load is kept: the files of a split are named in its last message, and the meta leader has them staged. A
//! merge keeps its progress in the log of its group.

mod load;
mod loads;
mod merge;
mod rows;
mod server_loads;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use serde_json::Value;
use tidewater_common::header::check_header;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::refresh_work_server::{RefreshWork, RefreshWorkServer};
use tidewater_proto::v1::{
    CallHeader, CheckSourceRequest, CheckSourceResponse, ListSourceRequest, ListSourceResponse,
    LoadSplitsRequest, LoadSplitsResponse, MergeRegionRequest, MergeRegionResponse, Reason,
    SourceRecord, SourceSplit,
};
use tidewater_source_kinds::{
    MAX_PIN_BYTES, MAX_SPLITS, Source, SourceError, SourceKinds, SourceTable, Split,
};
use tonic::{Request, Response, Status};

use self::loads::Loads;
use self::merge::Merges;
use crate::catalog::CatalogRecords;
use crate::control::count_contradiction;
use crate::groups::Groups;
use crate::node_events::{NodeEvents, Room};
use load::LoadedTable;

/// Longest time to list a source.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// The gRPC service `RefreshWork` of a node.
#[derive(Debug, Clone)]
pub struct RefreshService {
    groups: Arc<Groups>,
    kinds: SourceKinds,
    loads: Loads,
    merges: Arc<Merges>,
}

impl RefreshService {
    /// Creates the service for a node's groups.
    pub fn new(groups: Arc<Groups>, kinds: SourceKinds) -> Self {
        Self { groups, kinds, loads: Loads::default(), merges: Arc::default() }
    }

    /// Wraps the service for tonic.
    pub fn into_server(self) -> RefreshWorkServer<Self> {
        RefreshWorkServer::new(self)
    }

    /// Refuses a call for another node, and one that contradicts the catalog.
    async fn check<T>(
        &self,
        header: Option<&CallHeader>,
        check: impl FnOnce(&CatalogRecords) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, header)?;
        let revision = header.map_or(0, |header| header.catalog_revision);
        node.catalog.check(revision, check).await
    }

    async fn open(
        &self,
        source: &SourceRecord,
        config: &Value,
        table: &LoadedTable,
    ) -> Result<Box<dyn Source>, Refusal> {
        let for_table = SourceTable { schema: table.schema(), codec: table.codec().clone() };
        self.kinds.open(&source.kind, config, for_table).await.map_err(source_error)
    }

    fn check_source(&self, request: CheckSourceRequest) -> Result<CheckSourceResponse, Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, request.header.as_ref())?;
        let (source, config) = parsed(request.source)?;
        let checked = self.kinds.check(&source.kind, &config);
        checked.map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?;
        Ok(CheckSourceResponse {})
    }

    async fn list(&self, request: ListSourceRequest) -> Result<ListSourceResponse, Refusal> {
        let table = request.table_id;
        let table = self.check(request.header.as_ref(), |of| LoadedTable::new(of, table)).await?;
        let listing = async {
            let (source, config) = parsed(request.source)?;
            let source = self.open(&source, &config, &table).await?;
            source.list().await.map_err(source_error)
        };
        let listing = tokio::time::timeout(LIST_TIMEOUT, listing).await.map_err(|_| {
            let text = format!("the source was not listed within {} s", LIST_TIMEOUT.as_secs());
            Refusal::new(Reason::SourceUnreadable, text)
        })??;
        if listing.splits.len() > MAX_SPLITS {
            let text = format!(
                "the source has {} splits, more than {MAX_SPLITS}: use fewer, larger objects",
                listing.splits.len()
            );
            return Err(Refusal::new(Reason::SourceMismatch, text));
        }
        let splits = listing.splits.into_iter().map(to_wire).collect::<Result<_, _>>()?;
        Ok(ListSourceResponse { snapshot: listing.snapshot, splits })
    }

    async fn load(&self, request: LoadSplitsRequest) -> Result<LoadStream, Refusal> {
        let id = request.table_id;
        let table = self.check(request.header.as_ref(), |of| LoadedTable::loading(of, id)).await?;
        let (source, config) = parsed(request.source)?;
        let open = self.loads.open(&self.kinds.server(&source.kind, &config))?;
        let source = self.open(&source, &config, &table).await?;
        let split = |split: SourceSplit| Split {
            name: split.name,
            pin: split.pin.into_iter().collect(),
            bytes: split.bytes,
        };
        let splits = request.splits.into_iter().map(split).collect();
        let env = self.groups.context().env.clone();
        let load = load::start(env, table, source, splits, open);
        let events = self.groups.context().events.clone();
        Ok(Box::pin(load.inspect_err(move |problem| count_refusal(&events, problem))))
    }
}

/// Counts a load that failed for lack of room. Refreshable tables hold no events.
fn count_refusal(events: &NodeEvents, problem: &Status) {
    let refusal = Refusal::from_status(problem);
    if let Some(room) = Room::from_file_call(refusal.reason) {
        events.count_refusal(room, None, &refusal.message);
    }
}

type LoadStream = std::pin::Pin<Box<dyn Stream<Item = Result<LoadSplitsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl RefreshWork for RefreshService {
    type LoadSplitsStream = LoadStream;

    async fn check_source(
        &self,
        request: Request<CheckSourceRequest>,
    ) -> Result<Response<CheckSourceResponse>, Status> {
        // A wrong source is that of a user, not of the meta leader.
        Ok(Response::new(self.check_source(request.into_inner())?))
    }

    async fn list_source(
        &self,
        request: Request<ListSourceRequest>,
    ) -> Result<Response<ListSourceResponse>, Status> {
        let listed = self.list(request.into_inner()).await;
        listed.map(Response::new).map_err(|problem| counted("list_source", problem))
    }

    async fn load_splits(
        &self,
        request: Request<LoadSplitsRequest>,
    ) -> Result<Response<LoadStream>, Status> {
        let loading = self.load(request.into_inner()).await;
        loading.map(Response::new).map_err(|problem| counted("load_splits", problem))
    }

    async fn merge_region(
        &self,
        request: Request<MergeRegionRequest>,
    ) -> Result<Response<MergeRegionResponse>, Status> {
        let request = request.into_inner();
        let merged = async {
            self.check(request.header.as_ref(), |of| merge::check(of, &request)).await?;
            self.merges.call(&self.groups, &request).await
        };
        merged.await.map(Response::new).map_err(|problem| counted("merge_region", problem))
    }
}

/// Returns a source, and its configuration as JSON.
fn parsed(source: Option<SourceRecord>) -> Result<(SourceRecord, Value), Refusal> {
    let invalid = |text: String| Refusal::new(Reason::InvalidArgument, text);
    let source = source.ok_or_else(|| invalid("the request names no source".to_owned()))?;
    let config = serde_json::from_str(&source.config)
        .map_err(|error| invalid(format!("the configuration of the source is no JSON: {error}")))?;
    Ok((source, config))
}

fn counted(call: &'static str, problem: Refusal) -> Status {
    count_contradiction(call, &problem);
    problem.into()
}

/// Returns the RPC error of a source.
pub(crate) fn source_error(error: SourceError) -> Refusal {
    let reason = match &error {
        SourceError::Unreadable(_) | SourceError::NotPermitted(_) => Reason::SourceUnreadable,
        SourceError::Mismatch(_) => Reason::SourceMismatch,
        SourceError::Changed(_) => Reason::SourceChanged,
        SourceError::BadConfig(_) => Reason::InvalidArgument,
    };
    Refusal::new(reason, error.to_string())
}

fn to_wire(split: Split) -> Result<SourceSplit, Refusal> {
    let Split { name, pin, bytes } = split;
    let pinned: usize = pin.iter().map(|(key, value)| key.len() + value.len()).sum();
    if pinned > MAX_PIN_BYTES {
        let text =
            format!("the pin of split {name:?} has {pinned} bytes, more than {MAX_PIN_BYTES}");
        return Err(Refusal::new(Reason::SourceMismatch, text));
    }
    Ok(SourceSplit { name, pin: pin.into_iter().collect(), bytes })
}
