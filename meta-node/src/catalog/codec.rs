//! Stored encoding of the records that only meta nodes have, in the frame of `tidewater_catalog::frame`.

use prost::Message;
use tidewater_catalog::frame::{CODEC, frame, frame_as, unframe, unframe_as};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1;

use super::{CatalogError, Header};

/// Codec of the header from feature level 2 on. Releases that support the first level only cannot read it,
/// and exit: they would apply commands of later levels differently.
const LEVELED_HEADER_CODEC: u8 = 2;

pub(super) fn encode_message(message: &impl Message) -> Vec<u8> {
    frame(&message.encode_to_vec())
}

pub(super) fn decode_message<M: Message + Default>(
    kind: &'static str,
    bytes: &[u8],
) -> Result<M, CatalogError> {
    let invalid = |problem: String| CatalogError::InvalidRecord { kind, problem };
    let payload = unframe(bytes).map_err(|problem| invalid(problem.to_owned()))?;
    M::decode(payload).map_err(|error| invalid(error.to_string()))
}

/// Encodes the header.
pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let codec = match header.feature_level {
        FeatureLevel::FIRST => CODEC,
        _ => LEVELED_HEADER_CODEC,
    };
    frame_as(codec, &v1::MetaHeader::from(header).encode_to_vec())
}

/// Decodes the output of [`encode_header`]; a level that this release does not support is an error.
pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, CatalogError> {
    let invalid = |problem: String| CatalogError::InvalidRecord { kind: "header", problem };
    let is_leveled = bytes.first() == Some(&LEVELED_HEADER_CODEC);
    let codec = if is_leveled { LEVELED_HEADER_CODEC } else { CODEC };
    let payload = unframe_as(codec, bytes).map_err(|problem| invalid(problem.to_owned()))?;
    let stored = v1::MetaHeader::decode(payload).map_err(|error| invalid(error.to_string()))?;
    let level = FeatureLevel::new(stored.feature_level);
    if level > FeatureLevel::HIGHEST {
        return Err(CatalogError::LevelAboveRelease(level));
    }
    if is_leveled == (level == FeatureLevel::FIRST) {
        return Err(invalid(format!("its codec does not belong to feature level {level}")));
    }
    stored.try_into()
}
