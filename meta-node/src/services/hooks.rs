//! The proto service `HookAdmin`: hooks by configuration.

use std::time::Duration;

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

use super::{REQUEST_BYTES, Running, Slot};
use crate::catalog::{Hook, MetaState};
use crate::leader::HookReports;

/// How long adding a hook waits for the nodes to call it.
const CALLED: Duration = Duration::from_secs(10);
/// How often their heartbeats are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// What operators ask about hooks.
#[derive(Debug, Clone)]
pub(crate) struct HookService {
    slot: Slot,
    kinds: HookKinds,
}

impl HookService {
    pub(crate) fn new(slot: Slot, kinds: HookKinds) -> Self {
        Self { slot, kinds }
    }

    pub(crate) fn into_server(self) -> HookAdminServer<Self> {
        HookAdminServer::new(self).max_decoding_message_size(REQUEST_BYTES)
    }

    /// Returns when every data node that is up calls the hook, or could not make it, and the owners
    /// know where a durable one begins; or after a while without them, since it is stored and they
    /// will.
    async fn add(&self, request: v1::AddHookRequest) -> Result<(), Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        self.check(&request)?;
        running.group.propose(Kind::AddHook(request.clone())).await?;
        let until = Instant::now() + CALLED;
        while Instant::now() < until && !taken_up(&running, &request.name) {
            sleep(LOOK).await;
        }
        let Some(refusal) = gone(&running.group.view.read(), &request) else { return Ok(()) };
        // One that cannot begin where it should is taken back, under an id of its own that is the same
        // for every repeat of the request.
        let added = Uuid::try_parse(&request.request_id).unwrap_or_default();
        let request_id = Uuid::from_u128(!added.as_u128()).to_string();
        let remove = v1::RemoveHookRequest { request_id, name: request.name };
        match running.group.propose(Kind::RemoveHook(remove)).await {
            Err(error) if error.reason != Reason::HookNotFound => Err(error),
            _ => Err(refusal),
        }
    }

    fn check(&self, request: &v1::AddHookRequest) -> Result<(), Refusal> {
        let invalid = |text: String| Refusal::new(Reason::InvalidArgument, text);
        let config = serde_json::from_str(&request.config)
            .map_err(|error| invalid(format!("the configuration is no JSON: {error}")))?;
        let (name, kind) = (request.name.clone(), request.kind.clone());
        let spec = HookSpec { name, kind, config, durable: request.durable, generation: 0 };
        self.kinds.check(&spec).map_err(|error| invalid(error.to_string()))
    }

    async fn list(&self) -> Result<v1::ListHooksResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let reports = running.observations.hooks();
        let state = running.group.view.read();
        let hooks = state.hooks().map(|hook| info(&state, hook, &reports)).collect();
        Ok(v1::ListHooksResponse { hooks })
    }
}

/// Whether every data node that is up has reported on the hook; also when it is gone again.
fn taken_up(running: &Running, name: &str) -> bool {
    let reports = running.observations.hooks();
    let state = running.group.view.read();
    let Some(hook) = state.hook(name) else { return true };
    let begins = |state| matches!(state, CursorState::Now | CursorState::From);
    if state.cursors().of_hook(name).any(|cursor| begins(cursor.state)) {
        return false;
    }
    let callers = state.nodes().filter(|node| is_caller(&state, node.id));
    let mut callers = callers.map(|node| node.id);
    callers.all(|node| reports_on(&reports, hook).any(|(reporter, _)| reporter == node))
}

/// Why a hook that was added cannot begin with the version that was asked for.
fn gone(state: &MetaState, request: &v1::AddHookRequest) -> Option<Refusal> {
    if request.start() != HookStart::Version {
        return None;
    }
    let refusal = |text| Some(Refusal::new(Reason::VersionGone, text));
    let version = request.version;
    if state.hook(&request.name).is_none() {
        // The answer to the request was lost, and it was taken back.
        return refusal(format!("some region has no version {version}, or no longer has it"));
    }
    let mut cursors = state.cursors().of_hook(&request.name);
    let gone = cursors.find(|cursor| cursor.state == CursorState::Gone)?;
    refusal(format!("region {} has no version {version}, or no longer has it", gone.region))
}

fn is_caller(state: &MetaState, node: NodeId) -> bool {
    let node = state.node(node);
    node.is_some_and(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
}

/// Data nodes call each hook that there is, compactors those that came with a job.
fn may_call(state: &MetaState, node: NodeId) -> bool {
    let node = state.node(node);
    node.is_some_and(|node| node.role != NodeRole::Meta && node.state == NodeState::Up)
}

/// What nodes say of this very hook, not of an earlier one of its name.
fn reports_on<'a>(
    reports: &'a HookReports,
    hook: &'a Hook,
) -> impl Iterator<Item = (NodeId, &'a v1::HookReport)> {
    let of = move |report: &&v1::HookReport| {
        report.name == hook.name && report.generation == hook.generation.get()
    };
    reports.iter().flat_map(move |(node, all)| all.iter().filter(of).map(move |one| (*node, one)))
}

/// A hook on all nodes that are up together.
fn info(state: &MetaState, hook: &Hook, reports: &HookReports) -> v1::HookInfo {
    // A durable hook outlives its table for as long as it has to be told of its end.
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
        // Ordered from good to bad.
        info.state = info.state.max(report.state);
        if !report.last_error.is_empty() {
            info.last_error.clone_from(&report.last_error);
        }
    }
    if info.state() != HookState::Broken {
        let of = |wanted| {
            let mut cursors = state.cursors().of_hook(&hook.name);
            cursors.find(|cursor| cursor.state == wanted).map(|cursor| cursor.region)
        };
        if let Some(region) = of(CursorState::Gone) {
            info.state = HookState::Broken.into();
            info.last_error = format!("the version that it should begin with is gone in {region}");
        } else if of(CursorState::Lagged).is_some() {
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
        self.add(request.into_inner()).await?;
        Ok(Response::new(v1::AddHookResponse {}))
    }

    async fn set_hook_paused(
        &self,
        request: Request<v1::SetHookPausedRequest>,
    ) -> Result<Response<v1::SetHookPausedResponse>, Status> {
        let command = Kind::SetHookPaused(request.into_inner());
        self.slot.get()?.group.propose(command).await?;
        Ok(Response::new(v1::SetHookPausedResponse {}))
    }

    async fn remove_hook(
        &self,
        request: Request<v1::RemoveHookRequest>,
    ) -> Result<Response<v1::RemoveHookResponse>, Status> {
        let command = Kind::RemoveHook(request.into_inner());
        self.slot.get()?.group.propose(command).await?;
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
    fn a_hook_is_the_sum_of_what_the_nodes_say_of_it() {
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
            (NodeId(101), vec![report(generation, HookState::Active)]),
            (NodeId(102), vec![report(generation, HookState::Suspended)]),
            (NodeId(103), vec![report(generation, HookState::Broken)]),
            // A compactor.
            (NodeId(104), vec![report(generation, HookState::Active)]),
        ]);
        let shown = info(&state, hook, &reports);
        assert_eq!((shown.calls, shown.failures, shown.backlog), (15, 6, 9));
        assert_eq!(shown.state(), HookState::Suspended);
        assert_eq!(shown.last_error, "late");
        // An earlier hook of that name.
        let old = BTreeMap::from([(NodeId(101), vec![report(generation - 1, HookState::Broken)])]);
        let shown = info(&state, hook, &old);
        assert_eq!((shown.calls, shown.state()), (0, HookState::Active));
    }

    #[test]
    fn a_hook_that_lags_or_cannot_begin_is_shown_as_such() {
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
        let shown =
            |state: &MetaState| info(state, state.hook("h").unwrap(), &BTreeMap::default()).state();
        advance(&mut state, 1, CursorState::From, CursorState::Tail);
        assert_eq!((shown(&state), gone(&state, &request)), (HookState::Active, None));
        advance(&mut state, 1, CursorState::Tail, CursorState::Lagged);
        assert_eq!((shown(&state), gone(&state, &request)), (HookState::Lagged, None));
        advance(&mut state, 2, CursorState::From, CursorState::Gone);
        assert_eq!(shown(&state), HookState::Broken);
        let refusal = gone(&state, &request).unwrap();
        assert_eq!(refusal.reason, Reason::VersionGone);
        assert!(refusal.to_string().contains("region 2 has no version 8"), "{refusal}");
        let mut taken_back = state.clone();
        let remove = v1::RemoveHookRequest { request_id: directory(10), name: "h".into() };
        run(&mut taken_back, Kind::RemoveHook(remove)).unwrap();
        assert!(gone(&taken_back, &request).is_some(), "asked again with the same id");
        assert!(gone(&taken_back, &v1::AddHookRequest { start: 0, ..request }).is_none());
    }
}
