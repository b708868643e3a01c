//! Fence of a once write that regions do not know.

use std::sync::Arc;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::OnceWriter;
use super::open::{Opened, open};
use crate::catalog::TableInfo;
use crate::core::Core;
use crate::error::ClientError;
use crate::router::Limits;
use crate::write::send::{ForgottenPart, WriteIdentity};

/// Rows of a once write that regions do not know.
#[derive(Debug)]
#[must_use = "fence them, then look them up"]
pub struct ForgottenRows {
    table: Arc<TableInfo>,
    parts: Vec<(WriteIdentity, ForgottenPart)>,
}

impl ForgottenRows {
    pub(super) fn new(table: Arc<TableInfo>, parts: Vec<(WriteIdentity, ForgottenPart)>) -> Self {
        Self { table, parts }
    }
}

impl OnceWriter {
    /// Opens the producers of forgotten rows again. Afterwards no attempt of the earlier write takes effect: a read finds
    /// the rows that it has applied, and the others are to be written anew.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if a region knows the write after all, and the errors of the call. Resume the write.
    pub async fn fence(&self, forgotten: &ForgottenRows) -> Result<(), ClientError> {
        let limits = Limits::of(self.client.options());
        for (identity, part) in &forgotten.parts {
            // A region that knows later writes of a stream refuses earlier ones already.
            if part.reason == Reason::ProducerForgotten {
                fence_part(&self.client.core, &forgotten.table, *identity, part, &limits).await?;
            }
        }
        Ok(())
    }
}

/// Opens the producer of forgotten rows in each region that has keys of them.
async fn fence_part(
    core: &Core,
    table: &TableInfo,
    identity: WriteIdentity,
    part: &ForgottenPart,
    limits: &Limits,
) -> Result<(), ClientError> {
    let stream = (identity.producer, Some(identity.origin));
    let is_known = |cause: Box<Refusal>| ClientError::Unknown {
        table: table.name.clone(),
        acknowledged: 0,
        failed: 0,
        unknown: part.rows,
        cause,
    };
    let mut key = part.first_key.clone();
    loop {
        match open(core, table, &key, stream, limits).await? {
            Opened::As { opening, .. } if opening == identity.opening => {
                let text = "the region knows the write again: repeat it";
                return Err(is_known(Box::new(Refusal::new(Reason::RouteBusy, text))));
            }
            Opened::As { route, .. } => match &route.range.end {
                Some(end) if *end <= part.last_key => key.clone_from(end),
                _ => return Ok(()),
            },
            Opened::HasWritten(refusal) => return Err(is_known(refusal)),
        }
    }
}
