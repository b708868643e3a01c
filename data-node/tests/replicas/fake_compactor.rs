//! A scripted compactor; without a script it works like a real one.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{Epoch, GroupId, JobId, NodeId, OwnerEpoch, Term};
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::compaction::v1::compaction_event::Event;
use tidewater_proto::compaction::v1::compaction_server::{Compaction, CompactionServer};
use tidewater_proto::compaction::v1::*;
use tidewater_proto::v1::{CompactionProgress, CompactorInfo, CompactorLoad, Reason};
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::compaction::{
    Attempt, CompactionJob, CompactionLimits, CompactionPlan, CompactionRegion,
    OpenCompactionRegionRequest as Opening, open_compaction_region,
};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::hooks::{HookHome, HookLimits, HookSets, HookSpec};
use tidewater_region_engine::storage::Storage;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// Scripted reaction to a job.
#[derive(Debug, Clone)]
pub(crate) enum FakeReply {
    /// Refuses to open the region.
    RefuseOpening(Reason),
    /// Refuses the plan.
    RefusePlan(Reason),
    /// Accepts and fails with this reason; the flag states whether the manifest may have been
    /// written.
    Fail(Reason, bool),
    /// Accepts, then its event stream breaks.
    Die,
    /// Accepts, then its event stream breaks once notified.
    DieOnNotify(Arc<Notify>),
    /// Accepts and reports unchanged progress forever; works once notified.
    HangUntilNotified(Arc<Notify>),
    /// Works, and its event stream breaks before the result is sent.
    WorkAndDie,
    /// Works and reports the result twice, after a result of another job.
    ReportTwice,
}

/// The fake compactor: its script, and a record of the calls that it received.
#[derive(Debug)]
pub(crate) struct FakeCompactor {
    pub(crate) node: u64,
    address: String,
    sets: HookSets,
    env: RegionEnv,
    script: Mutex<VecDeque<FakeReply>>,
    /// Open regions by handle.
    pub(crate) open: Mutex<BTreeMap<String, Arc<CompactionRegion>>>,
    pub(crate) openings: Mutex<Vec<OpenCompactionRegionRequest>>,
    pub(crate) plans: Mutex<Vec<CompactRequest>>,
    pub(crate) cancelled: Mutex<Vec<String>>,
    /// Limit from which the owner records its jobs as slow.
    pub(crate) slow_operation_ms: Mutex<Option<u64>>,
    /// Jobs that it reports as running.
    pub(crate) running: Mutex<Vec<RunningCompaction>>,
    /// Outcomes of work that was done after [`FakeReply::HangUntilNotified`].
    pub(crate) late: Mutex<Vec<Result<(), Reason>>>,
}

impl FakeCompactor {
    pub(crate) async fn start(node: u64, storage: &Storage) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = HookHome { role: "compactor", node_id: NodeId(node) };
        let fake = Arc::new(Self {
            node,
            address: listener.local_addr().unwrap().to_string(),
            sets: HookSets::new(crate::cluster::hook_kinds(), home, HookLimits::default()),
            env: RegionEnv::new(
                storage.clone(),
                Arc::new(SystemClock),
                Arc::new(SystemIds),
                MemoryBudget::new(1),
                EngineOptions::default(),
            ),
            script: Mutex::default(),
            open: Mutex::default(),
            openings: Mutex::default(),
            plans: Mutex::default(),
            cancelled: Mutex::default(),
            slow_operation_ms: Mutex::default(),
            running: Mutex::default(),
            late: Mutex::default(),
        });
        let server = tonic::transport::Server::builder()
            .add_service(CompactionServer::new(FakeCompactionService(fake.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        fake
    }

    pub(crate) fn script(&self, replies: impl IntoIterator<Item = FakeReply>) {
        self.script.lock().extend(replies);
    }

    /// Replaces the script.
    pub(crate) fn replace_script(&self, replies: impl IntoIterator<Item = FakeReply>) {
        *self.script.lock() = replies.into_iter().collect();
    }

    /// Clears the script.
    pub(crate) fn clear_script(&self) {
        self.script.lock().clear();
    }

    /// Information as reported by the meta service.
    pub(crate) fn info(&self, slots: u32) -> CompactorInfo {
        let load = CompactorLoad { slots, memory_bytes: 1 << 30, ..Default::default() };
        CompactorInfo { node_id: self.node, address: self.address.clone(), load: Some(load) }
    }

    /// Numbers of the requested attempts.
    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.plans.lock().iter().map(|plan| plan.attempt).collect()
    }

    fn next_reply(&self, opening: bool) -> Option<FakeReply> {
        let mut script = self.script.lock();
        match script.front() {
            Some(FakeReply::RefuseOpening(_)) if opening => script.pop_front(),
            Some(_) if !opening => script.pop_front(),
            _ => None,
        }
    }

    /// Runs the last plan that it received, as another job.
    pub(crate) async fn compact_as_another_job(&self) {
        let opening = self.openings.lock().last().cloned().unwrap();
        let request = self.plans.lock().last().cloned().unwrap();
        let region = self.open_region(opening).await.unwrap();
        let plan = CompactionPlan::try_from(request.plan.clone().unwrap()).unwrap();
        let job_id = JobId(uuid::Uuid::now_v7());
        let job = region.prepare(&CompactionPlan { job_id, ..plan }).await.unwrap();
        self.work(&region, &request, &job).await.unwrap();
    }

    async fn open_region(
        &self,
        request: OpenCompactionRegionRequest,
    ) -> Result<CompactionRegion, Refusal> {
        let owner = request.owner_epoch.unwrap();
        let epoch = OwnerEpoch { move_epoch: owner.move_epoch, term: Term(owner.term) };
        let plugins = request.plugins.into_iter().map(|plugin| HookSpec::try_from(plugin).unwrap());
        let opening = Opening {
            dir: request.dir.unwrap().into(),
            schema: TableSchema::try_from(&request.schema.unwrap()).unwrap(),
            options: TableOptions::try_from(&request.options.unwrap()).unwrap(),
            owner: (epoch, GroupId(request.group_id)),
            since: Epoch(request.since),
            limits: CompactionLimits { parallelism: 1, memory_bytes: 0 },
            hooks: plugins.collect(),
            table_name: None,
        };
        let region = open_compaction_region(&self.env, &self.sets, opening).await;
        region.map_err(|error| Refusal::from(&error))
    }

    async fn work(
        &self,
        region: &CompactionRegion,
        request: &CompactRequest,
        job: &CompactionJob,
    ) -> Result<CompactionCommitted, Refusal> {
        let attempt = Attempt::default();
        let limits = CompactionLimits { parallelism: 1, memory_bytes: 0 };
        let done = region.run(job, limits, &attempt).await;
        let done = done.map_err(|error| Refusal::from(&error))?;
        Ok(CompactionCommitted {
            manifest_version: done.manifest_version.get(),
            files_in: request.plan.clone().unwrap().inputs,
            files_out: done.outputs.iter().map(Into::into).collect(),
            done: Some(attempt.progress.snapshot().into()),
        })
    }

    async fn run_job(
        &self,
        reply: Option<FakeReply>,
        region: Arc<CompactionRegion>,
        request: CompactRequest,
        events: mpsc::Sender<Result<CompactionEvent, Status>>,
    ) {
        let plan = CompactionPlan::try_from(request.plan.clone().unwrap()).unwrap();
        let job = region.prepare(&plan).await.unwrap();
        let job_id = plan.job_id.to_string();
        let message = |job_id: &str, event| {
            Ok(CompactionEvent { job_id: job_id.to_owned(), event: Some(event) })
        };
        let send = async |event| drop(events.send(message(&job_id, event)).await);
        send(Event::Accepted(CompactionAccepted::default())).await;
        let failed = |reason: Reason, manifest_may_be_written| {
            Event::Failed(CompactionFailed {
                reason: reason.into(),
                message: "as scripted".to_owned(),
                manifest_may_be_written,
            })
        };
        match reply {
            Some(FakeReply::Fail(reason, may_be_written)) => {
                send(failed(reason, may_be_written)).await
            }
            Some(FakeReply::Die) => {
                drop(events.send(Err(Status::unavailable("compactor died"))).await)
            }
            Some(FakeReply::DieOnNotify(notify)) => {
                notify.notified().await;
                drop(events.send(Err(Status::unavailable("compactor died"))).await);
            }
            Some(FakeReply::HangUntilNotified(notify)) => {
                let mut notified = Box::pin(notify.notified());
                while tokio::time::timeout(std::time::Duration::from_millis(50), &mut notified)
                    .await
                    .is_err()
                {
                    send(Event::Progress(CompactionProgress::default())).await;
                }
                let outcome = self.work(&region, &request, &job).await;
                self.late.lock().push(outcome.map(drop).map_err(|refusal| refusal.reason));
            }
            Some(FakeReply::WorkAndDie) => {
                self.work(&region, &request, &job).await.unwrap();
                drop(events.send(Err(Status::unavailable("compactor died"))).await);
            }
            reply => {
                let outcome = self.work(&region, &request, &job).await;
                let event = match outcome {
                    Ok(done) => Event::Committed(done),
                    Err(refusal) => failed(refusal.reason, false),
                };
                if matches!(reply, Some(FakeReply::ReportTwice)) {
                    let other = failed(Reason::Internal, false);
                    let _ = events.send(message("another job", other)).await;
                    send(event.clone()).await;
                }
                send(event).await;
            }
        }
    }
}

/// gRPC side of the fake compactor.
#[derive(Debug, Clone)]
struct FakeCompactionService(Arc<FakeCompactor>);

impl std::ops::Deref for FakeCompactionService {
    type Target = FakeCompactor;
    fn deref(&self) -> &FakeCompactor {
        &self.0
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<CompactionEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Compaction for FakeCompactionService {
    async fn open_compaction_region(
        &self,
        request: Request<OpenCompactionRegionRequest>,
    ) -> Result<Response<OpenCompactionRegionResponse>, Status> {
        let request = request.into_inner();
        self.openings.lock().push(request.clone());
        if let Some(FakeReply::RefuseOpening(reason)) = self.next_reply(true) {
            return Err(Refusal::new(reason, "as scripted").into());
        }
        let region = self.open_region(request).await?;
        let handle = format!("{}", self.openings.lock().len());
        self.open.lock().insert(handle.clone(), Arc::new(region));
        let slow_operation_ms = *self.slow_operation_ms.lock();
        let opened =
            OpenCompactionRegionResponse { handle, slow_operation_ms, ..Default::default() };
        Ok(Response::new(opened))
    }

    type CompactStream = EventStream;

    async fn compact(
        &self,
        request: Request<CompactRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        self.plans.lock().push(request.clone());
        let reply = self.next_reply(false);
        if let Some(FakeReply::RefusePlan(reason)) = reply {
            return Err(Refusal::new(reason, "as scripted").into());
        }
        let region = self.open.lock().get(&request.handle).cloned().unwrap();
        let (events, receiver) = mpsc::channel(8);
        let this = self.0.clone();
        tokio::spawn(async move { this.run_job(reply, region, request, events).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel_compaction(
        &self,
        request: Request<CancelCompactionRequest>,
    ) -> Result<Response<CancelCompactionResponse>, Status> {
        self.cancelled.lock().push(request.into_inner().job_id);
        Ok(Response::new(CancelCompactionResponse {}))
    }

    async fn list_compactions(
        &self,
        _request: Request<ListCompactionsRequest>,
    ) -> Result<Response<ListCompactionsResponse>, Status> {
        let jobs = self.running.lock().clone();
        Ok(Response::new(ListCompactionsResponse { jobs }))
    }

    async fn close_compaction_region(
        &self,
        request: Request<CloseCompactionRegionRequest>,
    ) -> Result<Response<CloseCompactionRegionResponse>, Status> {
        self.open.lock().remove(&request.into_inner().handle);
        Ok(Response::new(CloseCompactionRegionResponse {}))
    }
}
