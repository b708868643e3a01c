//! Posts a record while its caller waits: what it returned well for has been taken.

use async_trait::async_trait;
use tidewater_region_engine::hooks::HookError;

use super::transport::{Answer, Transport};
use crate::narrator::Outlet;
use crate::record::Record;

/// The outlet of a durable hook.
#[derive(Debug)]
pub(super) struct Direct<T> {
    transport: T,
}

impl<T: Transport> Direct<T> {
    pub(super) fn new(transport: T) -> Self {
        Self { transport }
    }
}

#[async_trait]
impl<T: Transport> Outlet for Direct<T> {
    async fn put(&self, record: Record) -> Result<(), HookError> {
        match self.transport.post(record.into_text().into()).await {
            Answer::Taken => Ok(()),
            // A version that was given up would be a gap: whoever refuses it holds the hook up.
            Answer::Again(problem) | Answer::Refused(problem) => Err(HookError::new(problem)),
        }
    }
}
