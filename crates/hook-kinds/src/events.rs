//! The `events` hook kind: records each call as an event of type `hook_event`, with the recorder of the node that makes
//! the call.
//!
//! Configuration: `{}`. A call succeeds at once; the recorder counts the events that it drops.
//! A call of a durable hook succeeds when the event is in the recorder's spool, or when the node records no events of
//! this type. Otherwise its caller retries. The event of a version of a manifest has the same id and time
//! each time that the version is delivered, so that the table has it once. A bootstrap that is repeated is another
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
use tidewater_events::RecordOutcome;
use tidewater_region_engine::RegionHookRef;
use tidewater_region_engine::hooks::{
    HookError, HookHome, HookKind, HookSpec, RegionEvent, RegionHook,
};

use self::hook_event::{HookIdentity, event_of};
use crate::access::HookAccess;
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
        let identity = HookIdentity {
            name: spec.name.clone(),
            generation: spec.generation,
            durable: spec.durable,
        };
        Ok(Arc::new(EventsHook { identity, home, access: self.access.clone() }))
    }
}

/// Hook that records its calls.
#[derive(Debug)]
struct EventsHook {
    identity: HookIdentity,
    home: HookHome,
    access: HookAccess,
}

#[async_trait]
impl RegionHook for EventsHook {
    fn name(&self) -> &str {
        &self.identity.name
    }

    async fn on_event(&self, event: &RegionEvent) -> Result<(), HookError> {
        if self.access.event_tables.contains(event.source.dir.table_id) {
            return Ok(());
        }
        let receipt =
            self.access.events.record(event_of(&self.identity, self.home, event).as_ref());
        if !self.identity.durable {
            return Ok(());
        }
        delivered(receipt.await)
    }
}

/// Result of a call of a durable hook.
fn delivered(outcome: RecordOutcome) -> Result<(), HookError> {
    match outcome {
        // The operator has chosen to record no such events: a call that failed would be repeated for all time.
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
