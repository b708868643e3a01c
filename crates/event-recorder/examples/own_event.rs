//! A program records events of its own type, and persists them by a handler of its own.
//!
//! Run it twice: the second run finds what the first one left in its spool.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_event_recorder::{EventRecorderImpl, EventRecorderOptions, OpenError, RecorderEnv};
use tidewater_events::*;

#[derive(Debug)]
struct DoorOpened {
    door: u64,
}

impl Event for DoorOpened {
    fn event_type(&self) -> &str {
        "door_opened"
    }
    fn extra_schema(&self) -> Vec<ExtraColumn> {
        vec![ExtraColumn::new("door", ValueType::UInt64)]
    }
    fn extra_row(&self) -> Result<Vec<Value>, EventError> {
        Ok(vec![Value::UInt64(self.door)])
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Prints events.
#[derive(Debug)]
struct Printer;

#[async_trait]
impl EventHandler for Printer {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        for event in batch.events() {
            println!("{} {} {:?}", event.id, event.event_type, event.extra);
        }
        Ok(Handled::default())
    }
}

#[tokio::main]
async fn main() -> Result<(), OpenError> {
    let (options, filter) = (EventRecorderOptions::default(), TypeFilter::default());
    let spool = Path::new("door-events");
    let env = RecorderEnv::default();
    let recorder = EventRecorderImpl::open(spool, Arc::new(Printer), filter, options, env)?;
    let outcome = recorder.record(&DoorOpened { door: 7 }).await;
    println!("outcome: {outcome:?}");
    recorder.close().await;
    Ok(())
}
