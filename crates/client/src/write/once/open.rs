//! Opening of a producer in a region.

use std::sync::Arc;

use tidewater_common::ids::{ProducerId, RegionId, Sequence};
use tidewater_common::refusal::Refusal;

use super::empty::{EmptyWrite, EmptyWriteAnswer, EmptyWriteDecision, send_empty};
use crate::catalog::{RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::router::Limits;
use crate::write::send::OPENING;

/// State of a producer in a region after its opening write.
#[derive(Debug)]
pub(super) enum Opened {
    /// It has not written rows under this opening.
    As {
        /// Route of the region.
        route: Arc<RouteInfo>,
        /// New, or that of an earlier opening write.
        opening: Sequence,
    },
    /// It has: the region refused the opening write.
    HasWritten(Box<Refusal>),
}

/// Opens a producer in the region of a key. `stream`: the producer and the origin of its writes; `None`: the region.
///
/// # Errors
/// [`ClientError::TableNotFound`], [`ClientError::Refused`], [`ClientError::RetriesExhausted`],
/// [`ClientError::OtherCluster`].
pub(super) async fn open(
    core: &Core,
    table: &TableInfo,
    key: &[u8],
    stream: (ProducerId, Option<RegionId>),
    limits: &Limits,
) -> Result<Opened, ClientError> {
    let (producer, origin) = stream;
    let write = EmptyWrite { producer, origin, serial: OPENING, opening: Sequence(0) };
    let EmptyWriteAnswer { route, decision } = send_empty(core, table, key, write, limits).await?;
    match decision {
        EmptyWriteDecision::Taken(opening) => Ok(Opened::As { route, opening }),
        EmptyWriteDecision::OutOfOrder(refusal) => Ok(Opened::HasWritten(refusal)),
        EmptyWriteDecision::Forgotten(refusal) => {
            Err(ClientError::Refused { what: write.purpose(table), refusal })
        }
    }
}
