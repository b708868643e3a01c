//! The bytes of deltas and checkpoints: a prost message in a frame.
//!
//! Decoding never panics and never guesses: any flipped bit, truncation or trailing byte is an error
//! that names the object.

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

/// Why bytes are no manifest object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not what was written.
    #[error("{0}")]
    Damaged(String),
    /// Written by a newer release.
    #[error("format {found}, newer than {supported}")]
    Newer {
        /// The format that it names.
        found: u32,
        /// The newest that this release reads.
        supported: u32,
    },
}

/// The bytes of a delta.
pub(crate) fn encode_delta(delta: &Delta) -> Bytes {
    frame::wrap(FrameKind::Delta, &v1::ManifestDelta::from(delta).encode_to_vec())
}

/// Reads a delta.
pub(crate) fn decode_delta(bytes: &[u8]) -> Result<Delta, CodecError> {
    let message = v1::ManifestDelta::decode(frame::unwrap(FrameKind::Delta, bytes)?)
        .map_err(|error| CodecError::Damaged(error.to_string()))?;
    Delta::try_from(message)
}

/// The bytes of a checkpoint.
pub(crate) fn encode_checkpoint(state: &ManifestState) -> Bytes {
    frame::wrap(FrameKind::Checkpoint, &v1::ManifestCheckpoint::from(state).encode_to_vec())
}

/// Reads a checkpoint.
pub(crate) fn decode_checkpoint(bytes: &[u8]) -> Result<ManifestState, CodecError> {
    let message = v1::ManifestCheckpoint::decode(frame::unwrap(FrameKind::Checkpoint, bytes)?)
        .map_err(|error| CodecError::Damaged(error.to_string()))?;
    ManifestState::try_from(message)
}

impl CodecError {
    fn missing(field: &str) -> Self {
        Self::Damaged(format!("field {field} is missing or malformed"))
    }

    /// Names the object.
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
