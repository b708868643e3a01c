//! Stored encoding of records.
//!
//! Frame: codec byte, crc32c of the payload (big endian), payload. A truncation or a flipped bit at
//! any position fails the checksum before the payload is decoded. The payload's own checks therefore
//! only see bytes that some release has written.

use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{CatalogVersion, Epoch, GroupId, Incarnation, RegionId};
use tidewater_proto::v1;

use super::{CatalogError, Header, RouteDescriptor, RouteState};

const CODEC: u8 = 1;
/// Codec of a route that was made in a later incarnation than the first: its payload begins with the
/// incarnation. Codec 1 has no room for it, and stands for the first one.
const LATER_ROUTE_CODEC: u8 = 2;
/// Codec of the header from feature level 2 on. Releases that support the first level only cannot read it,
/// and exit: they would apply commands of later levels differently.
const LEVELED_HEADER_CODEC: u8 = 2;
const FRAME: usize = 5;

pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    frame_as(CODEC, payload)
}

fn frame_as(codec: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME + payload.len());
    bytes.push(codec);
    bytes.extend(crc32c::crc32c(payload).to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn unframe(bytes: &[u8]) -> Result<&[u8], &'static str> {
    unframe_as(CODEC, bytes)
}

fn unframe_as(expected: u8, bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (codec, rest) = bytes.split_first().ok_or("it is empty")?;
    if *codec != expected {
        return Err("its codec byte is unknown: it may come from a newer release");
    }
    let (checksum, payload) = rest.split_first_chunk::<4>().ok_or("it is truncated")?;
    if crc32c::crc32c(payload) != u32::from_be_bytes(*checksum) {
        return Err("its checksum does not match");
    }
    Ok(payload)
}

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

/// Encodes the catalog version.
pub fn encode_catalog_version(version: CatalogVersion) -> Vec<u8> {
    frame(&version.get().to_be_bytes())
}

/// Decodes the output of [`encode_catalog_version`].
pub fn decode_catalog_version(bytes: &[u8]) -> Result<CatalogVersion, CatalogError> {
    number(bytes).map(CatalogVersion).map_err(CatalogError::InvalidVersionRecord)
}

/// Encodes the next route id.
pub fn encode_catalog_next_route_id(next: RegionId) -> Vec<u8> {
    frame(&next.get().to_be_bytes())
}

/// Decodes the output of [`encode_catalog_next_route_id`]; 0 is not an id and returns an error.
pub fn decode_catalog_next_route_id(bytes: &[u8]) -> Result<RegionId, CatalogError> {
    match number(bytes) {
        Ok(0) => Err(CatalogError::InvalidNextRouteIdRecord("it is 0")),
        Ok(next) => Ok(RegionId(next)),
        Err(problem) => Err(CatalogError::InvalidNextRouteIdRecord(problem)),
    }
}

fn number(bytes: &[u8]) -> Result<u64, &'static str> {
    let payload = unframe(bytes)?;
    <[u8; 8]>::try_from(payload).map(u64::from_be_bytes).map_err(|_| "it is not 8 bytes long")
}

/// Encodes a route.
pub fn encode_catalog_route(route: &RouteDescriptor) -> Result<Vec<u8>, CatalogError> {
    route.validate()?;
    let mut payload = Vec::with_capacity(72 + route.start.len());
    let codec = match route.incarnation {
        Incarnation::FIRST => CODEC,
        later => {
            payload.extend(later.get().to_be_bytes());
            LATER_ROUTE_CODEC
        }
    };
    payload.extend(route.route_id.get().to_be_bytes());
    payload.extend(route.group_id.get().to_be_bytes());
    payload.push(route.state as u8);
    payload.extend(route.parent_route_id.map_or(0, RegionId::get).to_be_bytes());
    payload.extend(route.epoch.get().to_be_bytes());
    put_bytes(&mut payload, &route.start)?;
    match &route.end {
        None => payload.push(0),
        Some(end) => {
            payload.push(1);
            put_bytes(&mut payload, end)?;
        }
    }
    Ok(frame_as(codec, &payload))
}

/// Decodes the output of [`encode_catalog_route`]; trailing bytes return an error.
pub fn decode_catalog_route(bytes: &[u8]) -> Result<RouteDescriptor, CatalogError> {
    let is_later = bytes.first() == Some(&LATER_ROUTE_CODEC);
    let codec = if is_later { LATER_ROUTE_CODEC } else { CODEC };
    let payload = unframe_as(codec, bytes).map_err(CatalogError::InvalidRouteRecord)?;
    let mut reader = PayloadReader(payload);
    let incarnation = if is_later { Incarnation(reader.u64()?) } else { Incarnation::FIRST };
    let route_id = RegionId(reader.u64()?);
    let group_id = GroupId(reader.u64()?);
    let state = RouteState::try_from(reader.u8()?)?;
    let parent = reader.u64()?;
    let epoch = Epoch(reader.u64()?);
    let start = reader.bytes()?;
    let end = match reader.u8()? {
        0 => None,
        1 => Some(reader.bytes()?),
        _ => return Err(CatalogError::InvalidRouteRecord("its end has an invalid tag")),
    };
    if !reader.0.is_empty() {
        return Err(CatalogError::InvalidRouteRecord("it has trailing bytes"));
    }
    let parent_route_id = (parent != 0).then_some(RegionId(parent));
    let route = RouteDescriptor {
        route_id,
        start,
        end,
        group_id,
        state,
        parent_route_id,
        epoch,
        incarnation,
    };
    route.validate()?;
    Ok(route)
}

fn put_bytes(payload: &mut Vec<u8>, bytes: &[u8]) -> Result<(), CatalogError> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| CatalogError::InvalidRouteRecord("a key is too long"))?;
    payload.extend(length.to_be_bytes());
    payload.extend(bytes);
    Ok(())
}

/// Reads a payload from the front; checks every length against the remaining bytes before it is used.
struct PayloadReader<'a>(&'a [u8]);

impl PayloadReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], CatalogError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(CatalogError::InvalidRouteRecord("it is truncated"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, CatalogError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, CatalogError> {
        self.take().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, CatalogError> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(CatalogError::InvalidRouteRecord("a key is truncated"))?;
        self.0 = rest;
        Ok(head.to_vec())
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
