//! Settings of the balance of routes, and the operations that their load suggests.

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, GroupState, HotspotMode, Reason, RouteAdviceKind, meta_command::Kind,
};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::AdminService;
use crate::catalog::MetaState;
use crate::leader::hotspots::{Hotspots, RouteAction, RouteAdvice, find_hotspots};

/// Most operations in an answer.
const MAX_ADVICE: usize = 1_000;

impl AdminService {
    pub(super) async fn balance(&self) -> Result<v1::GetBalanceResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        running.group.linearize().await?;
        let settings = running.group.view.read().balance();
        Ok(v1::GetBalanceResponse { settings: Some(settings.into()) })
    }

    pub(super) async fn change_balance(
        &self,
        request: v1::SetBalanceRequest,
    ) -> Result<v1::SetBalanceResponse, Refusal> {
        let running = self.slot.get()?;
        running.propose_at_level(Kind::SetBalance(request)).await?;
        let settings = running.group.view.read().balance();
        Ok(v1::SetBalanceResponse { settings: Some(settings.into()) })
    }

    pub(super) async fn advise(&self) -> Result<v1::AdviseRoutesResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        running.group.linearize().await?;
        let state = running.group.view.read();
        let now = Instant::now();
        let failed = |_| Refusal::new(Reason::Internal, "the search for hotspots failed");
        // Takes time for every route.
        spawn_blocking(move || {
            if state.balance().hotspots == HotspotMode::Off {
                return describe(&state, &Hotspots::default());
            }
            let creating = state.groups().filter(|group| group.state == GroupState::Creating);
            let creating: Vec<GroupId> = creating.map(|group| group.id).collect();
            let observed = running.observations.snapshot(&creating, now);
            let loads = running.observations.loads(now);
            describe(&state, &find_hotspots(&state, &observed, &loads))
        })
        .await
        .map_err(failed)
    }
}

fn describe(state: &MetaState, hotspots: &Hotspots) -> v1::AdviseRoutesResponse {
    let nodes = hotspots.nodes.busiest_and_mean();
    let advice = hotspots.advice.iter().take(MAX_ADVICE);
    v1::AdviseRoutesResponse {
        hotspots: state.balance().hotspots.into(),
        unknown_group_ids: hotspots.unknown.iter().map(|group| group.get()).collect(),
        advice: advice.map(|advice| described(state, advice, nodes)).collect(),
        busiest_node_score: nodes.0,
        mean_node_score: nodes.1,
    }
}

fn described(
    state: &MetaState,
    advice: &RouteAdvice,
    (busiest, mean): (u64, u64),
) -> v1::RouteAdvice {
    let settings = state.balance();
    let limit = settings.split_score;
    let table = state.table(advice.table).map(|table| table.name.clone()).unwrap_or_default();
    let score = advice.score;
    let mut described = v1::RouteAdvice {
        route_id: advice.route.get(),
        table,
        score,
        ..v1::RouteAdvice::default()
    };
    let hot = format!("its score of {score} per minute has exceeded {limit} for 30 s");
    let (kind, reason) = match &advice.action {
        RouteAction::Split { key } => {
            described.split_key = key.clone();
            (RouteAdviceKind::Split, hot)
        }
        RouteAction::NoSplitKey => (
            RouteAdviceKind::NoSplitKey,
            format!("{hot}, and no key divides the load of each window"),
        ),
        RouteAction::TooManyRoutes => (
            RouteAdviceKind::TooManyRoutes,
            format!("{hot}, and its table has {} routes or more", settings.max_routes),
        ),
        RouteAction::Relieve { to } => {
            described.target_group_id = to.get();
            let reason = format!(
                "its node has a score of {busiest} per minute, the mean of the nodes is {mean}"
            );
            (RouteAdviceKind::Move, reason)
        }
        RouteAction::Gather { to } => {
            described.target_group_id = to.get();
            let reason =
                format!("it and its left neighbour are cold, {score} per minute: to merge them");
            (RouteAdviceKind::Move, reason)
        }
        RouteAction::Merge { right } => {
            described.neighbour_id = right.get();
            let reason = format!(
                "they were divided by a split of a hot route and are cold, {score} per minute for a minute"
            );
            (RouteAdviceKind::Merge, reason)
        }
    };
    described.kind = kind.into();
    v1::RouteAdvice { reason, ..described }
}
