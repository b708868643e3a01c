//! The `events` hook kind: records each call as an event of type `hook_event`, with the recorder of the node that makes
//! the call.
//!
//! Configuration: `{}`. A node that records no events creates no hook. A call succeeds at once; the recorder counts the
//! events that it drops. A call of a durable hook succeeds when the event is in the recorder's spool, or when the node's
//! filter leaves this type out. Otherwise its caller retries. The event of a version of a manifest has the same id and
//! time each time that the version is delivered, so that the table has it once. A bootstrap that is repeated is another
//! event.
//!
//! Nothing is recorded about tables that hold events ([`EventTables`](crate::EventTables)).
//!
//! # Layout
//!
//! - `hook_event`: calls as events (pure).

mod hook_event;

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tidewater_events::{EventRecorderRef, RecordOutcome};
use tidewater_region_engine::RegionHookRef;
use tidewater_region_engine::hooks::{
    HookError, HookHome, HookKind, HookSpec, RegionEvent, RegionHook,
};

use self::hook_event::{HookIdentity, event_of};
use crate::access::HookAccess;
use crate::event_tables::EventTables;
use crate::parse;

/// Name of the kind.
pub const EVENTS_KIND: &str = "events";

/// The `events` hook kind.
#[derive(Debug, Clone)]
pub struct Events {
    /// Recorder of the node, and the tables that hold events.
    pub access: HookAccess,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

impl HookKind for Events {
    fn kind(&self) -> &'static str {
        EVENTS_KIND
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        let Config {} = parse(config)?;
        Ok(())
    }

    fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, String> {
        self.check(&spec.config)?;
        let recorder = Arc::clone(self.access.recorder()?);
        let event_tables = self.access.event_tables.clone();
        let identity = HookIdentity {
            name: spec.name.clone(),
            generation: spec.generation,
            durable: spec.durable,
        };
        Ok(Arc::new(EventsHook { identity, home, recorder, event_tables }))
    }
}

/// Hook that records its calls.
#[derive(Debug)]
struct EventsHook {
    identity: HookIdentity,
    home: HookHome,
    recorder: EventRecorderRef,
    event_tables: EventTables,
}

#[async_trait]
impl RegionHook for EventsHook {
    fn name(&self) -> &str {
        &self.identity.name
    }

    async fn on_event(&self, event: &RegionEvent) -> Result<(), HookError> {
        if self.event_tables.contains(event.source.dir.table_id) {
            return Ok(());
        }
        let recorded = event_of(&self.identity, self.home, event);
        let receipt = self.recorder.record(recorded.as_ref());
        if !self.identity.durable {
            return Ok(());
        }
        delivered(receipt.await)
    }
}

/// Result of a call of a durable hook.
fn delivered(outcome: RecordOutcome) -> Result<(), HookError> {
    match outcome {
        // The operator has left this type out: a call that failed would be repeated for all time.
        RecordOutcome::Spooled | RecordOutcome::Filtered => Ok(()),
        RecordOutcome::Dropped => Err(HookError::new(
            "the node has no room for the event; its delivery is retried. Give --event-spool more space",
        )),
        RecordOutcome::Closed => Err(HookError::new(
            "the event recorder is closed; the delivery of the event is retried",
        )),
    }
}

#[cfg(test)]
mod tests;
