//! Stored encoding of routes, of the catalog version and of the next route id, each in a [`frame`](crate::frame).

use tidewater_common::ids::{CatalogVersion, Epoch, GroupId, Incarnation, RegionId};

use crate::frame::{CODEC, frame, frame_as, unframe, unframe_as};
use crate::{RouteDescriptor, RouteError, RouteState};

/// Codec of a route that was made in a later incarnation than the first: its payload begins with the
/// incarnation. Codec 1 has no room for it, and is the codec of the first one.
const LATER_ROUTE_CODEC: u8 = 2;

/// Encodes the catalog version.
#[must_use]
pub fn encode_catalog_version(version: CatalogVersion) -> Vec<u8> {
    frame(&version.get().to_be_bytes())
}

/// Decodes the output of [`encode_catalog_version`].
///
/// # Errors
/// [`RouteError::InvalidVersionRecord`].
pub fn decode_catalog_version(bytes: &[u8]) -> Result<CatalogVersion, RouteError> {
    number(bytes).map(CatalogVersion).map_err(RouteError::InvalidVersionRecord)
}

/// Encodes the next route id.
#[must_use]
pub fn encode_catalog_next_route_id(next: RegionId) -> Vec<u8> {
    frame(&next.get().to_be_bytes())
}

/// Decodes the output of [`encode_catalog_next_route_id`].
///
/// # Errors
/// [`RouteError::InvalidNextRouteIdRecord`], also for 0, which is not an id.
pub fn decode_catalog_next_route_id(bytes: &[u8]) -> Result<RegionId, RouteError> {
    match number(bytes) {
        Ok(0) => Err(RouteError::InvalidNextRouteIdRecord("it is 0")),
        Ok(next) => Ok(RegionId(next)),
        Err(problem) => Err(RouteError::InvalidNextRouteIdRecord(problem)),
    }
}

fn number(bytes: &[u8]) -> Result<u64, &'static str> {
    let payload = unframe(bytes)?;
    <[u8; 8]>::try_from(payload).map(u64::from_be_bytes).map_err(|_| "it is not 8 bytes long")
}

/// Encodes a route.
///
/// # Errors
/// The route violates an invariant of a single route, or has a key of 4 GiB.
pub fn encode_catalog_route(route: &RouteDescriptor) -> Result<Vec<u8>, RouteError> {
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

/// Decodes the output of [`encode_catalog_route`].
///
/// # Errors
/// [`RouteError::InvalidRouteRecord`], also for trailing bytes; [`RouteError::InvalidState`]; the error of a record that
/// violates an invariant of a single route.
pub fn decode_catalog_route(bytes: &[u8]) -> Result<RouteDescriptor, RouteError> {
    let is_later = bytes.first() == Some(&LATER_ROUTE_CODEC);
    let codec = if is_later { LATER_ROUTE_CODEC } else { CODEC };
    let payload = unframe_as(codec, bytes).map_err(RouteError::InvalidRouteRecord)?;
    let mut reader = PayloadReader(payload);
    let incarnation = if is_later { Incarnation(reader.u64()?) } else { Incarnation::FIRST };
    let route_id = RegionId(reader.u64()?);
    let group_id = GroupId(reader.u64()?);
    let state = RouteState::try_from(i32::from(reader.u8()?))?;
    let parent = reader.u64()?;
    let epoch = Epoch(reader.u64()?);
    let start = reader.bytes()?;
    let end = match reader.u8()? {
        0 => None,
        1 => Some(reader.bytes()?),
        _ => return Err(RouteError::InvalidRouteRecord("its end has an invalid tag")),
    };
    if !reader.0.is_empty() {
        return Err(RouteError::InvalidRouteRecord("it has trailing bytes"));
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

fn put_bytes(payload: &mut Vec<u8>, bytes: &[u8]) -> Result<(), RouteError> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| RouteError::InvalidRouteRecord("a key is too long"))?;
    payload.extend(length.to_be_bytes());
    payload.extend(bytes);
    Ok(())
}

/// Reads a payload from the front; checks every length against the remaining bytes before it is used.
struct PayloadReader<'a>(&'a [u8]);

impl PayloadReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RouteError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(RouteError::InvalidRouteRecord("it is truncated"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, RouteError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, RouteError> {
        self.take().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, RouteError> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(RouteError::InvalidRouteRecord("a key is truncated"))?;
        self.0 = rest;
        Ok(head.to_vec())
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
