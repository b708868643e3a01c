//! Requests with an id: a repeated request gets the outcome of the first one.
//!
//! An id belongs to one request with its arguments. Outcomes are kept for 24 h of replicated time. When
//! there are too many, the oldest make room, but none that a client may still ask for.

use prost::Message;
use tidewater_common::ids::TableId;
use uuid::Uuid;

use super::{CommandError, CommandReply, Rules, procedures};
use crate::catalog::{
    CatalogChange, MAX_OUTCOMES, MetaState, OutcomeKind, RequestOutcome, TableChange,
};

/// Time for which the outcome of a request is kept even if there are too many, in milliseconds of
/// replicated time: far above the time for which a client repeats a request. Apply depends on it, so it
/// never changes.
pub(super) const RETRY_WINDOW_MS: u64 = 60 * 60 * 1_000;

/// A request with an id.
pub(super) struct IdentifiedRequest<'a> {
    id: Uuid,
    kind: OutcomeKind,
    /// Name of the table or hook.
    name: &'a str,
    /// Checksum of the whole request.
    arguments: Option<u32>,
    rules: Rules,
}

impl<'a> IdentifiedRequest<'a> {
    /// Parses the id of a request.
    pub(super) fn new(
        rules: Rules,
        kind: OutcomeKind,
        (id, name): (&str, &'a str),
        request: &impl Message,
    ) -> Result<Self, CommandError> {
        let arguments =
            rules.has_compared_arguments().then(|| crc32c::crc32c(&request.encode_to_vec()));
        Ok(Self { id: request_id(id)?, kind, name, arguments, rules })
    }

    /// Returns the same request without its arguments: a repeated one may have others.
    pub(super) fn with_any_arguments(self) -> Self {
        Self { arguments: None, ..self }
    }

    /// Returns the table of an earlier identical request. Returns an error when the request id was used
    /// for another request, or when no more request ids can be recorded.
    pub(super) fn find_repeated(&self, state: &MetaState) -> Result<Option<TableId>, CommandError> {
        if let Some(table) = procedures::find_begun(state, self.id, self.kind, self.arguments)? {
            return Ok(Some(table));
        }
        let Some(outcome) = state.outcome(self.id) else {
            let is_full = state.outcome_count() >= MAX_OUTCOMES;
            let has_room =
                !is_full || (self.rules.has_outcome_eviction() && removable(state).is_some());
            return if has_room {
                Ok(None)
            } else {
                Err(CommandError::OutcomesFull(state.outcome_count()))
            };
        };
        let differs = |recorded: u32| self.arguments.is_some_and(|own| own != recorded);
        if outcome.kind != self.kind
            || outcome.table_name != self.name
            || outcome.arguments.is_some_and(differs)
        {
            return Err(CommandError::RequestIdReused(self.id));
        }
        Ok(Some(outcome.table_id))
    }

    /// Returns the reply of the request and its change, with the outcome to record.
    pub(super) fn begun(
        &self,
        state: &MetaState,
        (table, change): (TableId, CatalogChange),
    ) -> (CommandReply, CatalogChange) {
        let outcome = Some(self.outcome(state, table));
        (CommandReply::Table(table), CatalogChange { outcome, ..change })
    }

    /// Returns the id with the outcome to record. `table`: 0 for hooks.
    pub(super) fn outcome(&self, state: &MetaState, table: TableId) -> (Uuid, RequestOutcome) {
        let outcome = RequestOutcome {
            time_ms: state.header().time_ms,
            kind: self.kind,
            table_name: self.name.to_owned(),
            table_id: table,
            arguments: self.arguments,
        };
        (self.id, outcome)
    }
}

/// Parses a request id.
pub(super) fn request_id(text: &str) -> Result<Uuid, CommandError> {
    text.parse().map_err(|_| CommandError::Malformed("the request id is not a UUID".to_owned()))
}

/// Adds the removal of the oldest outcome to a change that records one more than the maximum.
pub(super) fn make_room(state: &MetaState, rules: Rules, change: &mut CatalogChange) {
    let is_new = |(id, _): &(Uuid, RequestOutcome)| state.outcome(*id).is_none();
    let is_full = state.outcome_count() >= MAX_OUTCOMES;
    if rules.has_outcome_eviction() && is_full && change.outcome.as_ref().is_some_and(is_new) {
        change.forgotten.extend(removable(state));
    }
}

/// Returns the oldest outcome that no client may still ask for. A load needs its outcome until it ends.
fn removable(state: &MetaState) -> Option<Uuid> {
    let before_ms = state.header().time_ms.checked_sub(RETRY_WINDOW_MS)?;
    state
        .outcomes_by_time()
        .take_while(|(time_ms, _)| *time_ms < before_ms)
        .map(|(_, id)| id)
        .find(|id| !is_of_a_load_in_progress(state, *id))
}

fn is_of_a_load_in_progress(state: &MetaState, id: Uuid) -> bool {
    let table = state.outcome(id).and_then(|outcome| state.table(outcome.table_id));
    let change = table.and_then(|table| table.change.as_ref());
    matches!(change, Some(TableChange::Load(load)) if load.area == id)
}

#[cfg(test)]
mod tests;
