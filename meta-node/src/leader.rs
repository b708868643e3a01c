//! Leader services of group 0: replicated time, failure detection, placement, procedures.
//!
//! - *Leader term* ([`LeaderTerm`](leader_term::LeaderTerm)): one term of this node as leader of
//!   group 0. Starts when the node learns that it leads, and ends with all its tasks when it no longer
//!   does. Changes the catalog only through commands that carry its term.
//! - *Observations*: heartbeats and the reports of group leaders, in memory. Empty at the start of a
//!   term, so that every failure timer restarts and a new leader needs no state of the previous one.
//! - *Placement step*: one change of a data group, e.g. adding a learner.
//!
//! # Layout
//!
//! - `observations`: recorded heartbeats; `detector`: nodes that are up or down (pure); `member_states`: meta nodes that are (pure).
//! - `recording`: commands that record observations in the catalog.
//! - `rounds`: rounds of the planner.
//! - `plan`: the next `placement_step` of each group (pure); `placement_tasks`: steps in progress; `steps`:
//!   performs a step; `step_failures`: log level of its failures (pure).
//! - `group_count`: creation and retirement of groups; `balance`: spread of replicas and leaders; `route_balance`: spread
//!   of routes; `hotspots`: operations on routes that their load suggests (all pure).
//! - `control`: calls to data nodes; `garbage`: schedule of garbage collection.
//! - `procedures`: attempts on procedures; `attempts`: their backoff, progress and failures (pure); `region_calls`: their
//!   calls to the leaders of groups; `group_permits`: limit of the calls to each group.
//! - `clocks`: agreement of clocks, and the next reading of replicated time (pure); `replicated_time`: ticks.
//! - `releases`: releases of the nodes, as they report them; `levels`: the next feature level, and the nodes that
//!   hold it back (pure); `level_raises`: raises it.
//! - `barriers`: barrier scheduler. `refreshes`: refresh manager. `exports`: export manager. `expired_holds`: ends read holds; `learned_sinces`: asks
//!   regions for oldest readable epochs; `empty_collections`: drops tables whose read policy is empty.
//! - `problems`: problems of the cluster, for its status (pure), and their begin.
//! - `member_replacement`: steps of the replacement of a meta node.
//! - `event_recording`: records the shared events of the log.
//! - `leader_term`: starts, runs and stops the tasks of a term.

mod attempts;
mod balance;
pub(crate) mod barriers;
pub(crate) mod clocks;
mod control;
mod detector;
pub(crate) mod empty_collections;
mod event_recording;
mod expired_holds;
pub(crate) mod exports;
pub(crate) mod garbage;
mod group_count;
mod group_permits;
mod hook_procedures;
pub(crate) mod hotspots;
mod leader_term;
pub(crate) mod learned_sinces;
mod level_raises;
pub(crate) mod levels;
mod member_replacement;
mod member_states;
mod node_load;
mod observations;
mod placement_step;
mod placement_tasks;
mod plan;
pub(crate) mod problems;
mod procedures;
mod recording;
mod refreshes;
mod region_calls;
pub(crate) mod releases;
mod replicated_time;
mod rounds;
mod route_balance;
mod step_failures;
mod steps;

pub use self::barriers::BarrierOptions;
pub(crate) use self::control::Control;
pub(crate) use self::event_recording::LeaderEvents;
pub(crate) use self::garbage::{GarbageOptions, Retention};
#[cfg(test)]
pub(crate) use self::group_permits::MAX_CALLS_PER_GROUP;
#[cfg(test)]
pub(crate) use self::leader_term::LeaderTerm;
pub(crate) use self::leader_term::{LeaderTiming, watch_leadership};
pub(crate) use self::observations::{
    HookReports, MemberDifference, Observations, ObservedCluster, ObservedGroup, ObservedReplica,
};
pub(crate) use self::plan::{CREATION_LIMIT, PlacementOptions, REPLICAS};
