//! Service `RegionAdmin`: calls of the command line about regions, and of the meta leader about a
//! store.
//!
//! Calls of the command line that change something are recorded as events.

mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::join_all;
use tidewater_cluster_events::{RecordedCall, RecordedCalls};
use tidewater_common::header::check_header;
use tidewater_common::ids::{Epoch, GroupId, NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::region_admin_server::{RegionAdmin, RegionAdminServer};
use tidewater_proto::v1::{
    self, CompactRegionEvent, CompactRegionRequest, CountVersionsRequest, CountVersionsResponse,
    FlushRegionRequest, FlushRegionResponse, ListFilesRequest, ListFilesResponse,
    ListRegionsRequest, ListRegionsResponse, Reason, RegionInfo, ShowManifestRequest,
    ShowManifestResponse, SstFile, SweepStoreRequest,
};
use tidewater_region_engine::Region;
use tidewater_region_engine::compaction::{Attempt, Scope, job_id};
use tidewater_region_engine::file_meta::FileMeta;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::json::manifest_json;
use tidewater_region_engine::region::Phase;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::sweep::{GarbageStream, Sweeper, logged_versions};
use crate::control::count_contradiction;
use crate::data::as_of::CatalogEpochs;
use crate::group::hosted::HostedRegion;
use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;
use crate::owner_request::{CompactionRequest, CompactionResult, OwnerRequest};

/// Largest request, in bytes: the known versions of sixteen durable hooks for a hundred thousand
/// regions.
const REQUEST_BYTES: usize = 64 << 20;
/// Time limit of the confirmation by a quorum.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a requested flush, which may write hundreds of megabytes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);

/// Maximum number of epochs of a count of versions.
const MAX_SINCES: usize = 1_024;
/// Counts of versions at a time: each reads the keys of a region.
const CONCURRENT_COUNTS: usize = 1;

/// Interval of progress events of a compaction.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

type CompactionOutcome = Result<Option<CompactionResult>, Refusal>;
type CompactionStream =
    Pin<Box<dyn Stream<Item = Result<CompactRegionEvent, Status>> + Send + 'static>>;

/// The gRPC service `RegionAdmin` of a node.
#[derive(Debug, Clone)]
pub struct RegionAdminService {
    groups: Arc<Groups>,
    calls: RecordedCalls,
    sweeper: Sweeper,
    /// Permits of counts of versions.
    counts: Arc<Semaphore>,
}

async fn flush_region(
    replica: &GroupReplica,
    region: RegionId,
) -> Result<FlushRegionResponse, Refusal> {
    let group = replica.group();
    let (reply, outcome) = oneshot::channel();
    replica
        .owner_requests
        .send(OwnerRequest::Flush(region, reply))
        .await
        .map_err(|_| refusals::replica_stopping(group))?;
    let report = tokio::time::timeout(FLUSH_TIMEOUT, outcome)
        .await
        .map_err(|_| refusals::deadline_exceeded("a flush", group))?
        .unwrap_or_else(|_| {
            Err(Refusal::new(
                Reason::NotLeader,
                format!("this node stopped leading group {group} before the flush was done"),
            ))
        })?;
    Ok(FlushRegionResponse {
        manifest_version: report.manifest_version.get(),
        flushed_sequence: report.flushed_sequence.get(),
        rows: report.rows,
        bytes: report.bytes,
        files: u32::try_from(report.files).unwrap_or(u32::MAX),
    })
}

/// Returns the result of flushes of two regions: sums, and what both have reached.
fn flushed_together(one: &FlushRegionResponse, other: &FlushRegionResponse) -> FlushRegionResponse {
    FlushRegionResponse {
        manifest_version: one.manifest_version.min(other.manifest_version),
        flushed_sequence: one.flushed_sequence.min(other.flushed_sequence),
        rows: one.rows.saturating_add(other.rows),
        bytes: one.bytes.saturating_add(other.bytes),
        files: one.files.saturating_add(other.files),
    }
}

impl RegionAdminService {
    /// Creates the service for a node's groups.
    pub fn new(groups: Arc<Groups>) -> Self {
        let calls = groups.context().events.admin_calls();
        let counts = Arc::new(Semaphore::new(CONCURRENT_COUNTS));
        Self { groups, calls, sweeper: Sweeper::new(), counts }
    }

    /// Wraps the service for tonic.
    pub fn into_server(self) -> RegionAdminServer<Self> {
        RegionAdminServer::new(self).max_decoding_message_size(REQUEST_BYTES)
    }

    /// Returns the groups of the regions of a request that this node leads for certain.
    async fn confirmed_groups(&self, request: &ListRegionsRequest) -> BTreeSet<GroupId> {
        let led = self.groups.all().into_iter().filter(|replica| {
            let mut hosted = replica.shared.regions.all().into_iter();
            replica.leadership().is_leader && hosted.any(|of| is_listed(&of, request))
        });
        let confirmed = led.map(|replica| async move {
            replica.confirm(CONFIRM_TIMEOUT).await.is_ok().then(|| replica.group())
        });
        join_all(confirmed).await.into_iter().flatten().collect()
    }

    /// Lists regions. `confirmed`: the only groups that count as led.
    fn list(
        groups: &Groups,
        request: &ListRegionsRequest,
        confirmed: Option<&BTreeSet<GroupId>>,
    ) -> Vec<RegionInfo> {
        let mut regions = Vec::new();
        for replica in groups.all() {
            let leads = confirmed
                .map_or(replica.leadership().is_leader, |groups| groups.contains(&replica.group()));
            if !leads && !request.include_followers {
                continue;
            }
            for hosted in replica.shared.regions.all() {
                // The engine of such a region does not know its oldest readable epoch yet.
                let id = hosted.descriptor.region_id;
                let is_loaded = hosted.region.stats().phase != Phase::Loading
                    && !replica.shared.regions.is_arriving(id);
                if is_listed(&hosted, request) && (is_loaded || confirmed.is_none()) {
                    let known = CatalogEpochs::of(groups, &hosted);
                    regions.push(info(&replica, &hosted, leads, known, request));
                }
            }
        }
        regions
    }

    async fn flush(&self, request: FlushRegionRequest) -> Result<FlushRegionResponse, Refusal> {
        let group = GroupId(request.group_id);
        let region = RegionId(request.region_id);
        let replica = self.groups.get(group)?;
        // A replica that no longer leads may have nothing to flush and lack later writes.
        replica.confirm(CONFIRM_TIMEOUT).await?;
        // Children have the rows of a region that they have replaced.
        let mut flushed: Option<FlushRegionResponse> = None;
        for hosted in replica.serving(region)? {
            let part = flush_region(&replica, hosted.descriptor.region_id).await?;
            flushed = Some(match flushed {
                None => part,
                Some(before) => flushed_together(&before, &part),
            });
        }
        Ok(flushed.unwrap_or_default())
    }

    async fn compact(
        &self,
        request: CompactRegionRequest,
        call: RecordedCall,
    ) -> Result<CompactionStream, Refusal> {
        let group = GroupId(request.group_id);
        let attempt = Attempt::default();
        match self.start_compaction(request, attempt.clone()).await {
            Ok(outcome) => {
                let (events, receiver) = mpsc::channel(1);
                tokio::spawn(watch(group, attempt, outcome, events, call));
                Ok(Box::pin(ReceiverStream::new(receiver)))
            }
            Err(refusal) => call.end(Err(refusal)),
        }
    }

    /// Requests a compaction; returns the receiver of its outcome.
    async fn start_compaction(
        &self,
        request: CompactRegionRequest,
        attempt: Attempt,
    ) -> Result<oneshot::Receiver<CompactionOutcome>, Refusal> {
        let group = GroupId(request.group_id);
        let region = RegionId(request.region_id);
        let replica = self.groups.get(group)?;
        replica.require_leader()?;
        replica.region(region)?;
        let (reply, outcome) = oneshot::channel();
        let scope = if request.due_only { Scope::Due } else { Scope::Whole };
        let place = request.place();
        let request = CompactionRequest { region, scope, place, attempt, reply };
        replica
            .compact_requests
            .send(request)
            .await
            .map_err(|_| refusals::replica_stopping(group))?;
        Ok(outcome)
    }

    fn cancel(
        &self,
        request: &v1::CancelCompactionRequest,
    ) -> Result<v1::CancelCompactionResponse, Refusal> {
        let job = job_id(&request.job_id)
            .map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?;
        let node = self.groups.context();
        if !node.compactors.registry.cancel(job) {
            let message = format!("node {} has no compaction {job}", node.node);
            return Err(Refusal::new(Reason::JobNotFound, message));
        }
        Ok(v1::CancelCompactionResponse {})
    }
}

/// Sends progress events until the compaction ends; a caller that disconnects cancels it. `call` ends with the compaction.
async fn watch(
    group: GroupId,
    attempt: Attempt,
    outcome: oneshot::Receiver<CompactionOutcome>,
    events: mpsc::Sender<Result<CompactRegionEvent, Status>>,
    call: RecordedCall,
) {
    let _cancel = attempt.cancel.clone().drop_guard();
    // Dropped before the guard, so that the cancelled compaction has no receiver: a caller that cancels
    // by disconnecting gets no reply.
    let mut outcome = outcome;
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    let outcome = loop {
        tokio::select! {
            ended = &mut outcome => break ended,
            _ = tick.tick() => {
                let progress = Some(total_progress(&attempt));
                let event = CompactRegionEvent { progress, done: false, report: None };
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        }
    };
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Refusal::new(
            Reason::NotLeader,
            format!("this node stopped leading group {group} before the compaction was done"),
        ))
    });
    let last_event = call.end(outcome).map_err(Status::from).map(|report| CompactRegionEvent {
        progress: Some(total_progress(&attempt)),
        done: true,
        report: report.map(report_to_wire),
    });
    // The compaction does not need a connected caller.
    let _ = events.send(last_event).await;
}

/// Returns whether a request asks for a region.
fn is_listed(hosted: &HostedRegion, request: &ListRegionsRequest) -> bool {
    let descriptor = &hosted.descriptor;
    request.table.as_ref().is_none_or(|name| *name == descriptor.table_name)
        && request.region_id.is_none_or(|id| id == descriptor.region_id.get())
}

/// Returns the work of all passes.
fn total_progress(attempt: &Attempt) -> v1::CompactionProgress {
    let (passes, done) = attempt.progress.total();
    v1::CompactionProgress { passes, ..done.into() }
}

fn report_to_wire(done: CompactionResult) -> v1::CompactionReport {
    let CompactionResult { report, node } = done;
    v1::CompactionReport {
        job_id: report.job_id.to_string(),
        manifest_version: report.manifest_version.get(),
        files_in: u32::try_from(report.files_in).unwrap_or(u32::MAX),
        bytes_in: report.bytes_in,
        files_out: u32::try_from(report.files_out).unwrap_or(u32::MAX),
        done: Some(report.done.into()),
        why: report.why.as_str().to_owned(),
        node_id: node.map_or(0, NodeId::get),
        passes: report.passes,
    }
}

fn info(
    replica: &GroupReplica,
    hosted: &HostedRegion,
    leader: bool,
    known: CatalogEpochs,
    request: &ListRegionsRequest,
) -> RegionInfo {
    let stats = hosted.region.stats();
    let id = hosted.descriptor.region_id;
    let state = if replica.shared.regions.is_replaced(id) {
        "replaced"
    } else if replica.shared.regions.is_arriving(id) {
        "arriving"
    } else {
        phase_name(stats.phase)
    };
    // The digest and its index are read under one lock.
    let (applied, digest, last_sequence, logged, (since, upper)) = {
        let state = replica.shared.state.read();
        let region = state.regions.get(&id);
        let digest = region.filter(|_| request.with_digest).map(|region| region.digest());
        let last_sequence = region.map_or(0, |region| region.last_sequence.get());
        let logged = region.map_or(0, |region| region.manifest_version.get());
        let epochs = state.readable_epochs(id).unwrap_or_default();
        let epochs = region.map_or(epochs, |region| known.readable(region, epochs));
        (replica.shared.applied(), digest.unwrap_or_default(), last_sequence, logged, epochs)
    };
    RegionInfo {
        region_id: id.get(),
        table_id: hosted.descriptor.table_id.get(),
        table: hosted.descriptor.table_name.clone(),
        group_id: replica.group().get(),
        node_id: replica.shared.node.get(),
        leader,
        files: u32::try_from(stats.files).unwrap_or(u32::MAX),
        bytes: stats.file_bytes,
        rows: stats.file_rows + stats.memtable_rows,
        manifest_version: stats.manifest_version.get(),
        memtable_bytes: stats.memtable_bytes,
        memtable_rows: stats.memtable_rows,
        memtable_runs: u32::try_from(stats.runs).unwrap_or(u32::MAX),
        flushed_sequence: stats.flushed_sequence.get(),
        last_sequence,
        schema_version: hosted.descriptor.schema_version().get(),
        state: state.to_owned(),
        applied_index: applied.get(),
        digest,
        logged_version: logged,
        incarnation: hosted.descriptor.incarnation.get(),
        since: since.max(hosted.region.since()).get(),
        upper: upper.get(),
        times: request.with_times.then(|| times(&hosted.region)).flatten(),
    }
}

/// Returns the bounds of the time column; `None` if they cannot be read.
fn times(region: &Region) -> Option<v1::RegionTimes> {
    match region.time_range() {
        Ok(range) => Some(v1::RegionTimes {
            least: range.map(|range| range.min),
            greatest: range.map(|range| range.max),
        }),
        Err(error) => {
            tracing::warn!(region = %region.id(), %error, "failed to read the times of a region");
            None
        }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Loading => "loading",
        Phase::Following | Phase::Owning(_) => "serving",
        Phase::Fenced(_) | Phase::Removed | Phase::Closed => "detached",
    }
}

fn sst(file: &FileMeta) -> SstFile {
    SstFile {
        file_id: file.file_id.to_string(),
        path: file.path().to_string(),
        level: file.level,
        bytes: file.size,
        rows: file.rows,
        min_key: Bytes::from(file.min_key.clone()),
        max_key: Bytes::from(file.max_key.clone()),
        min_sequence: file.min_sequence().get(),
        max_sequence: file.max_sequence().get(),
    }
}

#[tonic::async_trait]
impl RegionAdmin for RegionAdminService {
    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<ListRegionsResponse>, Status> {
        let groups = self.groups.clone();
        let request = request.into_inner();
        let confirmed =
            if request.confirmed { Some(self.confirmed_groups(&request).await) } else { None };
        // Digests and times cost a pass over the memtables.
        let list = move || Self::list(&groups, &request, confirmed.as_ref());
        let listed = tokio::task::spawn_blocking(list).await;
        let regions = listed.map_err(|error| {
            Refusal::new(Reason::Internal, format!("listing regions failed: {error}"))
        })?;
        Ok(Response::new(ListRegionsResponse { regions }))
    }

    async fn flush_region(
        &self,
        request: Request<FlushRegionRequest>,
    ) -> Result<Response<FlushRegionResponse>, Status> {
        let mut call = self.calls.begin(&request);
        // A flush changes no rows, so that a false claim hides nothing else.
        if request.get_ref().by_node {
            call.forget();
        }
        Ok(Response::new(call.end(self.flush(request.into_inner()).await)?))
    }

    type SweepStoreStream = GarbageStream;

    async fn sweep_store(
        &self,
        request: Request<SweepStoreRequest>,
    ) -> Result<Response<GarbageStream>, Status> {
        let node = self.groups.context();
        let request = request.into_inner();
        let logged = logged_versions(&request, &node.catalog.region_ids());
        let pass = check_header(node.cluster, node.node, request.header.as_ref())
            .and_then(|()| self.sweeper.start(node.env.clone(), node.node, request, logged));
        let pass = pass.inspect_err(|problem| {
            count_contradiction("sweep_store", problem);
        });
        Ok(Response::new(pass?))
    }

    type CompactRegionStream = CompactionStream;

    async fn compact_region(
        &self,
        request: Request<CompactRegionRequest>,
    ) -> Result<Response<CompactionStream>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(self.compact(request.into_inner(), call).await?))
    }

    async fn list_compactions(
        &self,
        _request: Request<v1::ListCompactionsRequest>,
    ) -> Result<Response<v1::ListCompactionsResponse>, Status> {
        let node = self.groups.context();
        let compactions = node.compactors.registry.list(node.node);
        Ok(Response::new(v1::ListCompactionsResponse { compactions }))
    }

    async fn cancel_compaction(
        &self,
        request: Request<v1::CancelCompactionRequest>,
    ) -> Result<Response<v1::CancelCompactionResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.cancel(request.get_ref()))?))
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> Result<Response<ListFilesResponse>, Status> {
        let request = request.into_inner();
        let replica = self.groups.get(GroupId(request.group_id))?;
        // Followers learn of new files later.
        replica.confirm(CONFIRM_TIMEOUT).await?;
        let hosted = replica.region(RegionId(request.region_id))?;
        let files = hosted.region.files().iter().map(sst).collect();
        Ok(Response::new(ListFilesResponse { files }))
    }

    async fn count_versions(
        &self,
        request: Request<CountVersionsRequest>,
    ) -> Result<Response<CountVersionsResponse>, Status> {
        let request = request.into_inner();
        if request.sinces.len() > MAX_SINCES {
            let text = format!("versions are counted for at most {MAX_SINCES} epochs");
            return Err(Refusal::new(Reason::InvalidArgument, text).into());
        }
        let replica = self.groups.get(GroupId(request.group_id))?;
        let _permit =
            self.counts.acquire().await.map_err(|_| refusals::replica_stopping(replica.group()))?;
        replica.confirm(CONFIRM_TIMEOUT).await?;
        let hosted = replica.region(RegionId(request.region_id))?;
        let sinces: Vec<Epoch> = {
            let state = replica.shared.state.read();
            let kept = |since| state.kept_epoch(hosted.descriptor.region_id, Epoch(since));
            request.sinces.into_iter().map(kept).collect()
        };
        let account = self.groups.context().env.scan_memory.account();
        let counts = hosted.region.kept_versions(&sinces, &account).await;
        let versions = counts.map_err(|error| {
            replica.shared.handle_read_error(hosted.descriptor.region_id, &error);
            Refusal::from(&error)
        })?;
        let version_bytes = hosted.region.stats().version_bytes();
        Ok(Response::new(CountVersionsResponse { versions, version_bytes }))
    }

    async fn show_manifest(
        &self,
        request: Request<ShowManifestRequest>,
    ) -> Result<Response<ShowManifestResponse>, Status> {
        let request = request.into_inner();
        let replica = self.groups.get(GroupId(request.group_id))?;
        let descriptor = replica.region(RegionId(request.region_id))?.descriptor;
        let dir = RegionDir {
            table_id: descriptor.table_id,
            region_id: descriptor.region_id,
            incarnation: descriptor.incarnation,
        };
        let json =
            manifest_json(&replica.shared.env, dir).await.map_err(|error| Refusal::from(&error))?;
        Ok(Response::new(ShowManifestResponse { json: json.to_string() }))
    }
}
