//! Keys of state rows: a readable kind, then the id in big endian, so that rows sort by id.

use tidewater_common::ids::{GroupId, NodeId, RegionId, Revision, TableId};
use uuid::Uuid;

use super::{CatalogError, RowKind};

/// Key of the catalog version.
pub fn catalog_version_key() -> Vec<u8> {
    RowKind::CatalogVersion.prefix().to_vec()
}

/// Key of the next route id.
pub fn catalog_next_route_id_key() -> Vec<u8> {
    RowKind::NextRouteId.prefix().to_vec()
}

/// Key of a route.
pub fn catalog_route_key(route: RegionId) -> Vec<u8> {
    joined(RowKind::Route, &route.get().to_be_bytes())
}

/// Returns whether a key is the key of a route.
pub fn is_catalog_route_key(key: &[u8]) -> bool {
    route_id_from_key(key).is_ok()
}

/// Parses the route id of a route's key.
pub fn route_id_from_key(key: &[u8]) -> Result<RegionId, CatalogError> {
    key.strip_prefix(RowKind::Route.prefix())
        .and_then(|id| <[u8; 8]>::try_from(id).ok())
        .map(|id| RegionId(u64::from_be_bytes(id)))
        .ok_or(CatalogError::InvalidRouteKey(key.len()))
}

/// Key of the header.
pub(super) fn header() -> Vec<u8> {
    RowKind::Header.prefix().to_vec()
}

pub(super) fn table(id: TableId) -> Vec<u8> {
    joined(RowKind::Table, &id.get().to_be_bytes())
}

pub(super) fn group(id: GroupId) -> Vec<u8> {
    joined(RowKind::Group, &id.get().to_be_bytes())
}

pub(super) fn node(id: NodeId) -> Vec<u8> {
    joined(RowKind::Node, &id.get().to_be_bytes())
}

pub(super) fn outcome(request: Uuid) -> Vec<u8> {
    joined(RowKind::Outcome, request.as_bytes())
}

pub(super) fn hook(name: &str) -> Vec<u8> {
    joined(RowKind::Hook, name.as_bytes())
}

pub(super) fn hook_procedure(hook: &str) -> Vec<u8> {
    joined(RowKind::HookProcedure, hook.as_bytes())
}

pub(super) fn procedure(id: Uuid) -> Vec<u8> {
    joined(RowKind::Procedure, id.as_bytes())
}

/// Key of a cursor: the region, then the hook's name.
pub(super) fn cursor(region: RegionId, hook: &str) -> Vec<u8> {
    [RowKind::Cursor.prefix(), &region.get().to_be_bytes(), hook.as_bytes()].concat()
}

pub(super) fn delta(revision: Revision) -> Vec<u8> {
    joined(RowKind::Delta, &revision.get().to_be_bytes())
}

fn joined(kind: RowKind, id: &[u8]) -> Vec<u8> {
    [kind.prefix(), id].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_key_bytes_are_frozen_and_round_trip() {
        let key = catalog_route_key(RegionId(0x0102));
        assert_eq!(key, b"catalog/route/\0\0\0\0\0\0\x01\x02");
        assert_eq!(route_id_from_key(&key), Ok(RegionId(0x0102)));
        assert!(is_catalog_route_key(&key));
        assert_eq!(catalog_version_key(), b"catalog/version");
        assert_eq!(catalog_next_route_id_key(), b"catalog/next_route_id");
    }

    #[test]
    fn other_keys_are_not_route_keys() {
        let key = catalog_route_key(RegionId(7));
        for cut in 0..key.len() {
            assert_eq!(route_id_from_key(&key[..cut]), Err(CatalogError::InvalidRouteKey(cut)));
        }
        assert!(!is_catalog_route_key(&[key.as_slice(), b"x"].concat()));
        assert!(!is_catalog_route_key(&catalog_version_key()));
    }
}
