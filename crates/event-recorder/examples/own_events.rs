//! A program records events of its own type, and persists them by a handler of its own.
//!
//! `own_events [SPOOL]`: with a directory, events that a killed run has left there are persisted by the next one.

use std::{any::Any, error::Error, path::PathBuf, sync::Arc};

use tidewater_event_recorder::{EventRecorderImpl, EventRecorderOptions, RecorderEnv, events::*};

#[derive(Debug)]
struct DoorOpened {
    door: u64,
}

impl Event for DoorOpened {
    fn event_type(&self) -> &str {
        "door_opened"
    }
    // Columns of this type, in addition to id, type, timestamp and payload.
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

/// Prints events. A handler that writes them to a store returns an error when the batch is to be passed again.
#[derive(Debug)]
struct Printer;

#[async_trait::async_trait]
impl EventHandler for Printer {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        for event in batch.events() {
            println!("{} {} {} {:?}", event.id, event.timestamp_ns, event.event_type, event.extra);
        }
        Ok(Handled::default())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let spool = std::env::args().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);
    let options = EventRecorderOptions::default();
    let filter = TypeFilter::parse("door_*")?;
    let env = RecorderEnv::default();
    let recorder = EventRecorderImpl::open(&spool, Arc::new(Printer), filter, options, env)?;
    for door in 1..=3 {
        // Never waits. The receipt may be ignored: it resolves when the event is on the spool's disk.
        let receipt = recorder.record(&DoorOpened { door });
        println!("door {door}: {:?}", receipt.await);
    }
    recorder.close().await; // Persists what is in the spool.
    println!("{:?}", recorder.counts());
    Ok(())
}
