//! Keys of the stored records of the catalog: a readable kind, then the id in big endian, so that routes sort by id.

use tidewater_common::ids::RegionId;

use crate::RouteError;

/// Key of the catalog version.
pub const VERSION_KEY: &[u8] = b"catalog/version";
/// Key of the next route id.
pub const NEXT_ROUTE_ID_KEY: &[u8] = b"catalog/next_route_id";
/// Prefix of the keys of routes.
pub const ROUTE_KEY_PREFIX: &[u8] = b"catalog/route/";

/// Key of the catalog version.
#[must_use]
pub fn catalog_version_key() -> Vec<u8> {
    VERSION_KEY.to_vec()
}

/// Key of the next route id.
#[must_use]
pub fn catalog_next_route_id_key() -> Vec<u8> {
    NEXT_ROUTE_ID_KEY.to_vec()
}

/// Key of a route.
#[must_use]
pub fn catalog_route_key(route: RegionId) -> Vec<u8> {
    [ROUTE_KEY_PREFIX, &route.get().to_be_bytes()].concat()
}

/// Returns whether a key is the key of a route.
#[must_use]
pub fn is_catalog_route_key(key: &[u8]) -> bool {
    route_id_from_key(key).is_ok()
}

/// Parses the route id of a route's key.
///
/// # Errors
/// [`RouteError::InvalidRouteKey`].
pub fn route_id_from_key(key: &[u8]) -> Result<RegionId, RouteError> {
    key.strip_prefix(ROUTE_KEY_PREFIX)
        .and_then(|id| <[u8; 8]>::try_from(id).ok())
        .map(|id| RegionId(u64::from_be_bytes(id)))
        .ok_or(RouteError::InvalidRouteKey(key.len()))
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
            assert_eq!(route_id_from_key(&key[..cut]), Err(RouteError::InvalidRouteKey(cut)));
        }
        assert!(!is_catalog_route_key(&[key.as_slice(), b"x"].concat()));
        assert!(!is_catalog_route_key(&catalog_version_key()));
    }
}
