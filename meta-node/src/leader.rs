//! What only the leader of group 0 does: time, failure detection, placement, procedures.
//!
//! A *stewardship* is one term of this node as leader. It starts when the node learns that it
//! leads, and ends with all its tasks when it no longer does. It acts only through commands that
//! name its term, and keeps nothing that the next one cannot find out again: *observations* (who
//! sent a heartbeat, what group leaders report) start empty, so every failure timer starts anew.
//!
//! # Layout
//!
//! - `observations`: what heartbeats said; `detector`: who is up or down (pure).
//! - `plan`: the next step for each group (pure); `steps`: carries one out.
//! - `control`: calls to data nodes; `tables`: opens, changes and drops regions, `clones` and
//!   `loads`: with the files of another table, or with files that a loader stages; `garbage`: when
//!   and where garbage is collected.
//! - `stewardship`: starts, runs and stops it all.

mod clones;
mod control;
mod detector;
pub(crate) mod garbage;
mod loads;
mod observations;
mod plan;
mod steps;
mod stewardship;
mod tables;

pub(crate) use self::control::Control;
#[cfg(test)]
pub(crate) use self::control::connect_lazily;
pub(crate) use self::garbage::{GarbageOptions, Retention};
pub(crate) use self::observations::{HookReports, Observations, Observed, ObservedGroup};
pub(crate) use self::plan::{CREATION_LIMIT, REPLICAS};
#[cfg(test)]
pub(crate) use self::stewardship::Stewardship;
pub(crate) use self::stewardship::{Timing, watch_leadership};
