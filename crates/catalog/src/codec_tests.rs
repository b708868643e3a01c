use proptest::prelude::*;

use super::*;
use crate::frame::FRAME_BYTES;
use crate::testing::unusual_route as route;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// A route that was made after the cluster was restored.
fn later_route() -> RouteDescriptor {
    RouteDescriptor { incarnation: Incarnation(4), ..route() }
}

#[test]
fn stored_bytes_are_frozen() {
    let golden_route = "01234bf7880000000000000003000000000000000201000000000000000100000000000000\
                        09000000040000000101000000 0400000002";
    let golden_route = golden_route.replace(' ', "");
    assert_eq!(hex(&encode_catalog_route(&route()).unwrap()), golden_route);
    assert_eq!(decode_catalog_route(&unhex(&golden_route)), Ok(route()));
    let later = encode_catalog_route(&later_route()).unwrap();
    let payload = ["0000000000000004", &golden_route[2 * FRAME_BYTES..]].concat();
    assert_eq!((later[0], hex(&later[FRAME_BYTES..])), (2, payload));
    assert_eq!(decode_catalog_route(&later), Ok(later_route()));

    let golden_version = hex(&encode_catalog_version(CatalogVersion(7)));
    assert_eq!(golden_version, "0158e2d6610000000000000007");
    assert_eq!(decode_catalog_version(&unhex(&golden_version)), Ok(CatalogVersion(7)));
    let golden_next = hex(&encode_catalog_next_route_id(RegionId(8)));
    assert_eq!(golden_next, "0106f1ea450000000000000008");
    assert_eq!(decode_catalog_next_route_id(&unhex(&golden_next)), Ok(RegionId(8)));
}

#[test]
fn truncation_at_any_byte_returns_the_records_own_error() {
    let later = encode_catalog_route(&later_route()).unwrap();
    for cut in 0..later.len() {
        for damaged in
            [later[..cut].to_vec(), frame_as(2, later[..cut].get(FRAME_BYTES..).unwrap_or(&[]))]
        {
            let decoded = decode_catalog_route(&damaged);
            assert!(matches!(decoded, Err(RouteError::InvalidRouteRecord(_))), "{cut}");
        }
    }
    let bytes = encode_catalog_route(&route()).unwrap();
    for cut in 0..bytes.len() {
        assert!(matches!(
            decode_catalog_route(&bytes[..cut]),
            Err(RouteError::InvalidRouteRecord(_))
        ));
        // Also with a valid checksum: a record that was written truncated.
        if let Some(payload) = bytes[..cut].get(FRAME_BYTES..) {
            assert!(matches!(
                decode_catalog_route(&frame(payload)),
                Err(RouteError::InvalidRouteRecord(_))
            ));
        }
    }
    let version = encode_catalog_version(CatalogVersion(7));
    let next = encode_catalog_next_route_id(RegionId(7));
    for cut in 0..version.len() {
        assert!(matches!(
            decode_catalog_version(&version[..cut]),
            Err(RouteError::InvalidVersionRecord(_))
        ));
        assert!(matches!(
            decode_catalog_next_route_id(&next[..cut]),
            Err(RouteError::InvalidNextRouteIdRecord(_))
        ));
    }
}

#[test]
fn trailing_bytes_are_rejected() {
    let payload = [&encode_catalog_route(&route()).unwrap()[FRAME_BYTES..], &[0]].concat();
    assert_eq!(
        decode_catalog_route(&frame(&payload)),
        Err(RouteError::InvalidRouteRecord("it has trailing bytes"))
    );
    assert!(matches!(
        decode_catalog_version(&frame(&[0; 9])),
        Err(RouteError::InvalidVersionRecord(_))
    ));
    assert_eq!(
        decode_catalog_next_route_id(&frame(&[0; 8])),
        Err(RouteError::InvalidNextRouteIdRecord("it is 0"))
    );
}

#[test]
fn unknown_route_state_has_its_own_error() {
    let mut payload = encode_catalog_route(&route()).unwrap()[FRAME_BYTES..].to_vec();
    payload[16] = 4;
    assert_eq!(decode_catalog_route(&frame(&payload)), Err(RouteError::InvalidState(4)));
}

#[test]
fn invalid_route_is_not_encoded() {
    let cases = [
        (RouteDescriptor { route_id: RegionId(0), ..route() }, RouteError::RouteIdRequired),
        (
            RouteDescriptor { group_id: GroupId(0), ..route() },
            RouteError::GroupIdRequired(RegionId(3)),
        ),
        (
            RouteDescriptor { end: Some(vec![0, 0, 0, 1]), ..route() },
            RouteError::InvalidRange(RegionId(3)),
        ),
    ];
    for (bad, error) in cases {
        assert_eq!(encode_catalog_route(&bad), Err(error));
    }
}

#[test]
fn flipped_bit_fails_to_decode() {
    for route in [route(), later_route()] {
        let bytes = encode_catalog_route(&route).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_catalog_route(&damaged).is_err());
        }
    }
}

proptest! {
    #[test]
    fn routes_round_trip(
        id in 1..u64::MAX, group in 1..u64::MAX, state in 0i32..4, parent in 0..u64::MAX,
        epoch in 0..u64::MAX, start in proptest::collection::vec(any::<u8>(), 0..40),
        bounded in any::<bool>(), incarnation in 1u64..4,
    ) {
        let end = bounded.then(|| [start.as_slice(), &[0]].concat());
        let route = RouteDescriptor {
            route_id: RegionId(id), start, end, group_id: GroupId(group),
            state: RouteState::try_from(state).unwrap(),
            parent_route_id: (parent != 0).then_some(RegionId(parent)), epoch: Epoch(epoch),
            incarnation: Incarnation(incarnation),
        };
        prop_assert_eq!(decode_catalog_route(&encode_catalog_route(&route).unwrap()), Ok(route));
    }

    #[test]
    fn decoders_do_not_panic_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode_catalog_route(&bytes);
        let _ = decode_catalog_route(&frame(&bytes));
        let _ = decode_catalog_version(&bytes);
    }
}
