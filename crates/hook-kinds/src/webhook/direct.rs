//! Sink of durable webhooks: posts each record while its caller waits, without a queue.

use async_trait::async_trait;
use tidewater_region_engine::hooks::HookError;

use super::transport::{PostOutcome, Transport};
use crate::record::Record;
use crate::record_hook::RecordSink;

/// Sink that returns success only for records that the receiver has accepted.
#[derive(Debug)]
pub(super) struct DirectSink<T> {
    transport: T,
}

impl<T: Transport> DirectSink<T> {
    pub(super) fn new(transport: T) -> Self {
        Self { transport }
    }
}

#[async_trait]
impl<T: Transport> RecordSink for DirectSink<T> {
    async fn put(&self, record: Record) -> Result<(), HookError> {
        match self.transport.post(record.into_text().into()).await {
            PostOutcome::Accepted => Ok(()),
            // A dropped version would be a gap. A rejected record therefore blocks the hook until
            // the receiver accepts it.
            PostOutcome::Retry(problem) | PostOutcome::Rejected(problem) => {
                Err(HookError::new(problem))
            }
        }
    }
}
