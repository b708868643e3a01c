//! Implementation of the proto service `HookAdmin`: configured hooks.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::hook_admin_server::{HookAdmin, HookAdminServer};
use tidewater_proto::v1::{
    self, CursorState, HookStart, HookState, NodeRole, NodeState, Reason, meta_command::Kind,
};
use tidewater_region_engine::hooks::{HookKinds, HookSpec};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{MAX_REQUEST_BYTES, ReplicaSlot, RunningReplica};
use crate::catalog::{Hook, MetaState};
use crate::leader::HookReports;

/// Maximum time that adding a hook waits until all data nodes call it.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between checks of the data nodes' hook reports during that time.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Administration of hooks by operators.
#[derive(Debug, Clone)]
pub(crate) struct HookService {
    slot: ReplicaSlot,
    kinds: HookKinds,
    calls: RecordedCalls,
}

impl HookService {
    pub(crate) fn new(slot: ReplicaSlot, kinds: HookKinds, calls: RecordedCalls) -> Self {
        Self { slot, kinds, calls }
    }

    pub(crate) fn into_server(self) -> HookAdminServer<Self> {
        HookAdminServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Adds a hook. Returns when every data node that is up calls the hook or has failed to create it,
    /// and the owners have found the start of a durable hook. Also returns after a timeout, since the
    /// hook is stored and the nodes will call it later. A hook that a data node could not create is
    /// removed again: each node decides which files and addresses its hooks may use.
    async fn add(&self, request: v1::AddHookRequest) -> Result<(), Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        self.check(&request)?;
        running.group.propose(Kind::AddHook(request.clone())).await?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline && !is_ready(&running, &request.name) {
            sleep(CHECK_INTERVAL).await;
        }
        let failed = {
            let state = running.group.view.read();
            missing_start(&state, &request)
                .or_else(|| not_created(&state, &request, &running.observations.hooks()))
        };
        let Some(refusal) = failed else { return Ok(()) };
        // The request id of the removal is derived
        // from the id of the addition, so that it is the same for every repeated request.
        let added = Uuid::try_parse(&request.request_id).unwrap_or_default();
        let request_id = Uuid::from_u128(!added.as_u128()).to_string();
        let remove = v1::RemoveHookRequest { request_id, name: request.name };
        match self.remove(remove).await {
            Err(error) if error.reason != Reason::HookNotFound => Err(error),
            _ => Err(refusal),
        }
    }

    /// Removes a hook. Returns when its cursors are deleted, so that its name is free; or after a timeout,
    /// since the leader continues the deletion.
    async fn remove(&self, request: v1::RemoveHookRequest) -> Result<(), Refusal> {
        let running = self.slot.get()?;
        let name = request.name.clone();
        running.group.propose(Kind::RemoveHook(request)).await?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline && running.group.view.read().hook_procedure(&name).is_some()
        {
            sleep(CHECK_INTERVAL).await;
        }
        Ok(())
    }

    async fn set_paused(&self, request: v1::SetHookPausedRequest) -> Result<(), Refusal> {
        self.slot.get()?.group.propose(Kind::SetHookPaused(request)).await?;
        Ok(())
    }

    fn check(&self, request: &v1::AddHookRequest) -> Result<(), Refusal> {
        let invalid = |text: String| Refusal::new(Reason::InvalidArgument, text);
        let config = serde_json::from_str(&request.config)
            .map_err(|error| invalid(format!("the configuration is not JSON: {error}")))?;
        let spec = HookSpec {
            name: request.name.clone(),
            kind: request.kind.clone(),
            config,
            durable: request.durable,
            generation: 0,
        };
        self.kinds.check(&spec).map_err(|error| invalid(error.to_string()))
    }

    async fn list(&self) -> Result<v1::ListHooksResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let reports = running.observations.hooks();
        let state = running.group.view.read();
        let hooks = state.hooks().map(|hook| hook_info(&state, hook, &reports)).collect();
        Ok(v1::ListHooksResponse { hooks })
    }
}

/// Returns whether every data node that is up has reported on the hook, and the owners have found its
/// start. Also true when the hook has been removed.
fn is_ready(running: &RunningReplica, name: &str) -> bool {
    let reports = running.observations.hooks();
    let state = running.group.view.read();
    let Some(hook) = state.hook(name) else { return true };
    if state.hook_procedure(name).is_some() {
        return false;
    }
    let is_unresolved = |at| state.cursors().count_in_state(name, at) > 0;
    if [CursorState::Now, CursorState::From].into_iter().any(is_unresolved) {
        return false;
    }
    let reporters: BTreeSet<NodeId> = reports_on(&reports, hook).map(|(node, _)| node).collect();
    let mut callers = state.nodes().filter(|node| is_caller(&state, node.id));
    callers.all(|node| reporters.contains(&node.id))
}

/// Returns the error of an added hook whose start version does not exist.
fn missing_start(state: &MetaState, request: &v1::AddHookRequest) -> Option<Refusal> {
    if request.start() != HookStart::Version {
        return None;
    }
    let refusal = |text| Some(Refusal::new(Reason::VersionGone, text));
    let version = request.version;
    if state.hook(&request.name).is_none() {
        // A repeated request: the response was lost, and the hook was removed again.
        return refusal(format!("a region has no version {version}, or no longer has it"));
    }
    let region = state.cursors().first_in_state(&request.name, CursorState::Gone)?;
    refusal(format!("region {region} has no version {version}, or no longer has it"))
}

/// Returns the error of an added hook that a data node could not create, e.g. since its operator does
/// not allow its file.
fn not_created(
    state: &MetaState,
    request: &v1::AddHookRequest,
    reports: &HookReports,
) -> Option<Refusal> {
    let Some(hook) = state.hook(&request.name) else {
        // A repeated request: the response was lost, and the hook was removed again.
        let text = format!("hook {} was removed again: a node could not create it", request.name);
        return Some(Refusal::new(Reason::InvalidArgument, text));
    };
    let broken = reports_on(reports, hook)
        .find(|(node, report)| is_caller(state, *node) && report.state() == HookState::Broken);
    let (node, report) = broken?;
    let text = format!("node {node} cannot create the hook: {}", report.last_error);
    Some(Refusal::new(Reason::InvalidArgument, text))
}

/// Returns whether a node is a data node that is up, which calls every hook.
fn is_caller(state: &MetaState, node: NodeId) -> bool {
    let node = state.node(node);
    node.is_some_and(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
}

/// Returns whether a node is up and may call hooks: data nodes call all hooks, compactors those of a job.
fn may_call(state: &MetaState, node: NodeId) -> bool {
    let node = state.node(node);
    node.is_some_and(|node| node.role != NodeRole::Meta && node.state == NodeState::Up)
}

/// Returns the reports on a hook, without those on earlier hooks of the same name.
fn reports_on<'a>(
    reports: &'a HookReports,
    hook: &'a Hook,
) -> impl Iterator<Item = (NodeId, &'a v1::HookReport)> {
    let matches = move |report: &&v1::HookReport| {
        report.name == hook.name && report.generation == hook.generation.get()
    };
    reports
        .iter()
        .flat_map(move |(node, all)| all.iter().filter(matches).map(move |report| (*node, report)))
}

/// Returns the status of a hook over all nodes that are up.
fn hook_info(state: &MetaState, hook: &Hook, reports: &HookReports) -> v1::HookInfo {
    // A durable hook outlives its table until it has received the removal of all regions.
    let table = hook.table.map(|id| match state.table(id) {
        Some(table) => table.name.clone(),
        None => format!("(dropped table {id})"),
    });
    let paused = if hook.paused { HookState::Paused } else { HookState::Active };
    let mut info = v1::HookInfo {
        hook: Some(hook.into()),
        table: table.unwrap_or_default(),
        state: paused.into(),
        ..v1::HookInfo::default()
    };
    for (_, report) in reports_on(reports, hook).filter(|(node, _)| may_call(state, *node)) {
        info.calls = info.calls.saturating_add(report.calls);
        info.failures = info.failures.saturating_add(report.failures);
        info.backlog = info.backlog.saturating_add(report.backlog);
        // The values ascend from the best to the worst state.
        info.state = info.state.max(report.state);
        if !report.last_error.is_empty() {
            info.last_error.clone_from(&report.last_error);
        }
    }
    if info.state() != HookState::Broken {
        let cursors = state.cursors();
        if let Some(region) = cursors.first_in_state(&hook.name, CursorState::Gone) {
            info.state = HookState::Broken.into();
            info.last_error = format!("the start version does not exist in region {region}");
        } else if cursors.count_in_state(&hook.name, CursorState::Lagged) > 0 {
            info.state = HookState::Lagged.into();
        }
    }
    info
}

#[tonic::async_trait]
impl HookAdmin for HookService {
    async fn add_hook(
        &self,
        request: Request<v1::AddHookRequest>,
    ) -> Result<Response<v1::AddHookResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.add(request.into_inner()).await)?;
        Ok(Response::new(v1::AddHookResponse {}))
    }

    async fn set_hook_paused(
        &self,
        request: Request<v1::SetHookPausedRequest>,
    ) -> Result<Response<v1::SetHookPausedResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.set_paused(request.into_inner()).await)?;
        Ok(Response::new(v1::SetHookPausedResponse {}))
    }

    async fn remove_hook(
        &self,
        request: Request<v1::RemoveHookRequest>,
    ) -> Result<Response<v1::RemoveHookResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.remove(request.into_inner()).await)?;
        Ok(Response::new(v1::RemoveHookResponse {}))
    }

    async fn list_hooks(
        &self,
        _request: Request<v1::ListHooksRequest>,
    ) -> Result<Response<v1::ListHooksResponse>, Status> {
        Ok(Response::new(self.list().await?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::commands::testing::{compactor, directory, run, table, with_groups, with_nodes};

    fn report(generation: u64, state: HookState) -> v1::HookReport {
        v1::HookReport {
            name: "h".into(),
            generation,
            state: state.into(),
            calls: 5,
            failures: 2,
            skipped: 0,
            backlog: 3,
            last_error: if state == HookState::Suspended { "late".into() } else { String::new() },
        }
    }

    #[test]
    fn hook_info_sums_the_reports_of_all_nodes() {
        let mut state = with_nodes(3);
        let request = v1::AddHookRequest {
            request_id: directory(9),
            name: "h".into(),
            kind: "jsonl".into(),
            config: "{}".into(),
            ..v1::AddHookRequest::default()
        };
        run(&mut state, Kind::AddHook(request)).unwrap();
        run(&mut state, Kind::RegisterNode(compactor(20, 1))).unwrap();
        let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        let hook = state.hook("h").unwrap();
        let generation = hook.generation.get();
        let reports = BTreeMap::from([
            (NodeId(101), [report(generation, HookState::Active)].into()),
            (NodeId(102), [report(generation, HookState::Suspended)].into()),
            (NodeId(103), [report(generation, HookState::Broken)].into()),
            // A compactor.
            (NodeId(104), [report(generation, HookState::Active)].into()),
        ]);
        let shown = hook_info(&state, hook, &reports);
        assert_eq!((shown.calls, shown.failures, shown.backlog), (15, 6, 9));
        assert_eq!(shown.state(), HookState::Suspended);
        assert_eq!(shown.last_error, "late");
        // An earlier hook of the same name.
        let old =
            BTreeMap::from([(NodeId(101), [report(generation - 1, HookState::Broken)].into())]);
        let shown = hook_info(&state, hook, &old);
        assert_eq!((shown.calls, shown.state()), (0, HookState::Active));
    }

    #[test]
    fn hook_info_shows_lagging_and_broken_cursors() {
        let mut state = with_groups(1, 1);
        let two = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(two)).unwrap();
        let request = v1::AddHookRequest {
            request_id: directory(9),
            name: "h".into(),
            kind: "jsonl".into(),
            config: "{}".into(),
            durable: true,
            start: HookStart::Version.into(),
            version: 8,
            ..v1::AddHookRequest::default()
        };
        run(&mut state, Kind::AddHook(request.clone())).unwrap();
        let generation = state.hook("h").unwrap().generation.get();
        let advance = |state: &mut MetaState, region_id, from: CursorState, to: CursorState| {
            let advance = v1::CursorAdvance {
                hook: "h".into(),
                generation,
                region_id,
                expected_version: 7,
                expected_state: from.into(),
                version: 7,
                state: to.into(),
                done: false,
            };
            let advances = vec![advance];
            run(state, Kind::AdvanceCursors(v1::AdvanceCursors { advances })).unwrap();
        };
        let shown = |state: &MetaState| {
            hook_info(state, state.hook("h").unwrap(), &BTreeMap::default()).state()
        };
        advance(&mut state, 1, CursorState::From, CursorState::Tail);
        assert_eq!((shown(&state), missing_start(&state, &request)), (HookState::Active, None));
        advance(&mut state, 1, CursorState::Tail, CursorState::Lagged);
        assert_eq!((shown(&state), missing_start(&state, &request)), (HookState::Lagged, None));
        advance(&mut state, 2, CursorState::From, CursorState::Gone);
        assert_eq!(shown(&state), HookState::Broken);
        let refusal = missing_start(&state, &request).unwrap();
        assert_eq!(refusal.reason, Reason::VersionGone);
        assert!(refusal.to_string().contains("region 2 has no version 8"), "{refusal}");
        let mut removed = state.clone();
        let remove = v1::RemoveHookRequest { request_id: directory(10), name: "h".into() };
        run(&mut removed, Kind::RemoveHook(remove)).unwrap();
        assert!(missing_start(&removed, &request).is_some(), "repeated request");
        assert!(missing_start(&removed, &v1::AddHookRequest { start: 0, ..request }).is_none());
    }

    #[test]
    fn hook_that_a_data_node_cannot_create_is_refused() {
        let mut state = with_nodes(2);
        let request = v1::AddHookRequest {
            request_id: directory(9),
            name: "h".into(),
            kind: "jsonl".into(),
            config: "{}".into(),
            ..v1::AddHookRequest::default()
        };
        run(&mut state, Kind::AddHook(request.clone())).unwrap();
        run(&mut state, Kind::RegisterNode(compactor(20, 1))).unwrap();
        let generation = state.hook("h").unwrap().generation.get();
        let reports = |node: u64, generation: u64, state: HookState| -> HookReports {
            let broken = report(generation, state);
            [
                (NodeId(101), [report(generation, HookState::Active)].into()),
                (NodeId(node), [broken].into()),
            ]
            .into()
        };
        let refused = |reports: &HookReports| not_created(&state, &request, reports);
        assert_eq!(refused(&HookReports::default()), None, "no node has reported yet");
        assert_eq!(refused(&reports(102, generation, HookState::Suspended)), None);
        assert_eq!(refused(&reports(102, generation + 1, HookState::Broken)), None, "another hook");
        assert_eq!(refused(&reports(103, generation, HookState::Broken)), None, "a compactor");
        let refusal = refused(&reports(102, generation, HookState::Broken)).unwrap();
        assert_eq!(refusal.reason, Reason::InvalidArgument);
        assert!(refusal.message.contains("node 102 cannot create the hook"), "{refusal}");
        let mut removed = state.clone();
        let remove = v1::RemoveHookRequest { request_id: directory(10), name: "h".into() };
        run(&mut removed, Kind::RemoveHook(remove)).unwrap();
        assert!(not_created(&removed, &request, &HookReports::default()).is_some(), "repeated");
    }
}
