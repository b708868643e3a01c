//! Observed failures, with the begin of each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{NodeId, TableId};
use tidewater_common::problem::{LastingProblem, Problem};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1;
use tokio::time::Instant;
use uuid::Uuid;

use super::{MemberDifference, Observations, reported};
use crate::leader::problems::TableOperation;

/// Maximum number of manifests that are remembered as unreadable.
const MAX_UNREADABLE: usize = 64;

impl Observations {
    /// Records why a table is not ready; `None` when it is ready.
    pub(crate) fn record_table_error(&self, table: TableId, error: Option<String>) {
        let errors = &mut self.inner.lock().table_errors;
        match error {
            Some(error) => drop(errors.insert(table, error)),
            None => drop(errors.remove(&table)),
        }
    }

    /// Records the outcome of a connection to a node; `None`: it succeeded.
    pub(crate) fn record_probe(&self, node: NodeId, error: Option<String>, now: Instant) {
        let unreachable = &mut self.inner.lock().unreachable;
        match error {
            Some(error) => unreachable.entry(node).or_insert((now, String::new())).1 = error,
            None => drop(unreachable.remove(&node)),
        }
    }

    /// Records the outcome of a step of a member's replacement; `None`: there is progress, or no replacement.
    pub(crate) fn record_replacement(&self, error: Option<String>, now: Instant) {
        let failing = &mut self.inner.lock().replacement_failing;
        let since = failing.as_ref().map_or(now, |(since, _)| *since);
        *failing = error.map(|error| (since, error));
    }

    /// Records the answer of a meta member on its catalog; `None`: it equals the leader's.
    pub(crate) fn record_comparison(&self, node: NodeId, difference: Option<MemberDifference>) {
        let known = &mut self.inner.lock().member_differences;
        match difference {
            Some(difference) => drop(known.insert(node, difference)),
            None => drop(known.remove(&node)),
        }
    }

    /// Records the conditions in the answer of a meta member; none if it did not answer.
    pub(crate) fn record_member_conditions(&self, node: NodeId, conditions: &[v1::NodeCondition]) {
        let problems = reported(node, conditions);
        let known = &mut self.inner.lock().member_conditions;
        if problems.is_empty() {
            known.remove(&node);
        } else {
            known.insert(node, problems);
        }
    }

    /// Records the outcome of a garbage collection pass over all tables.
    pub(crate) fn record_garbage(
        &self,
        outcome: Result<&v1::GarbageReport, &Refusal>,
        now: Instant,
    ) {
        let mut inner = self.inner.lock();
        match outcome {
            Ok(report) => {
                inner.garbage_failing = None;
                inner.garbage_unreadable.clone_from(&report.unreadable_manifests);
                inner.garbage_unreadable.truncate(MAX_UNREADABLE);
            }
            Err(error) => {
                let since = inner.garbage_failing.as_ref().map_or(now, |(since, _)| *since);
                inner.garbage_failing = Some((since, error.to_string()));
            }
        }
    }

    /// Returns the exports whose steps fail: time since the first failure of the part that has failed for longest, and its last
    /// error.
    pub(super) fn failing_exports(&self, now: Instant) -> BTreeMap<Uuid, (Duration, String)> {
        let exports = self.exports.lock();
        let failing = exports.iter().filter_map(|(id, progress)| {
            let failure = progress.failure()?;
            let age = now.saturating_duration_since(failure.since);
            Some((*id, (age, failure.message.clone())))
        });
        failing.collect()
    }

    /// Records the operations on tables that are in progress; returns the age of each.
    pub(crate) fn record_operations(
        &self,
        current: &BTreeSet<TableOperation>,
        now: Instant,
    ) -> BTreeMap<TableOperation, Duration> {
        let known = &mut self.inner.lock().operations;
        known.retain(|operation, _| current.contains(operation));
        let age = |operation: &TableOperation| {
            let begun = *known.entry(*operation).or_insert(now);
            (*operation, now.saturating_duration_since(begun))
        };
        current.iter().map(age).collect()
    }

    /// Records the current problems; returns those that have lasted for their grace. `time_ms`:
    /// replicated time, 0 while it is unknown.
    pub(crate) fn record_problems(
        &self,
        current: Vec<Problem>,
        now: Instant,
        time_ms: u64,
    ) -> Vec<LastingProblem> {
        self.inner.lock().history.record(current, now.into_std(), time_ms)
    }
}
