//! Encoding of deltas and checkpoints: a prost message in a frame.
//!
//! Decoding never panics and never guesses: any flipped bit, truncation or trailing byte is an
//! error that names the object.

mod action;
mod checkpoint;
mod delta;
mod file;
mod frame;

use bytes::Bytes;
use prost::Message;
use tidewater_proto::v1;

use self::frame::FrameKind;
use super::{Delta, ManifestState};
use crate::error::EngineError;

/// Reason why bytes are not a valid manifest object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes differ from the bytes that were written.
    #[error("{0}")]
    Damaged(String),
    /// Written by a newer release.
    #[error("format {found} is newer than the supported format {supported}; upgrade this node")]
    Newer {
        /// The format of the object.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },
}

/// Encodes a delta.
pub(crate) fn encode_delta(delta: &Delta) -> Bytes {
    frame::wrap(FrameKind::Delta, &v1::ManifestDelta::from(delta).encode_to_vec())
}

/// Decodes a delta.
pub(crate) fn decode_delta(bytes: &[u8]) -> Result<Delta, CodecError> {
    let message = v1::ManifestDelta::decode(frame::unwrap(FrameKind::Delta, bytes)?)
        .map_err(|error| CodecError::Damaged(error.to_string()))?;
    Delta::try_from(message)
}

/// Encodes a checkpoint.
pub(crate) fn encode_checkpoint(state: &ManifestState) -> Bytes {
    frame::wrap(FrameKind::Checkpoint, &v1::ManifestCheckpoint::from(state).encode_to_vec())
}

/// Decodes a checkpoint.
pub(crate) fn decode_checkpoint(bytes: &[u8]) -> Result<ManifestState, CodecError> {
    let message = v1::ManifestCheckpoint::decode(frame::unwrap(FrameKind::Checkpoint, bytes)?)
        .map_err(|error| CodecError::Damaged(error.to_string()))?;
    ManifestState::try_from(message)
}

impl CodecError {
    fn missing(field: &str) -> Self {
        Self::Damaged(format!("field {field} is missing or malformed"))
    }

    /// Converts the error to an engine error that names the object.
    pub(crate) fn of(self, object: String) -> EngineError {
        match self {
            Self::Damaged(detail) => EngineError::Damaged { object, detail },
            Self::Newer { found, supported } => {
                EngineError::NewerFormat { object, found, supported }
            }
        }
    }
}

#[cfg(test)]
mod tests;
