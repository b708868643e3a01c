use proptest::collection::vec;
use proptest::prelude::*;

use super::chunk::{LEAST, MOST};
use super::*;

/// A route of a test: id, start, end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range(u64, Vec<u8>, Option<Vec<u8>>);

impl KeyedRoute for Range {
    fn id(&self) -> RegionId {
        RegionId(self.0)
    }

    fn start(&self) -> GlobalKey<'_> {
        GlobalKey::from_bytes(&self.1)
    }

    fn end(&self) -> Option<GlobalKey<'_>> {
        self.2.as_deref().map(GlobalKey::from_bytes)
    }
}

impl Range {
    fn new(id: u64, start: &[u8], end: Option<&[u8]>) -> Arc<Self> {
        Arc::new(Self(id, start.to_vec(), end.map(<[u8]>::to_vec)))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.reaches(other.start()) && other.reaches(self.start())
    }
}

fn ids<'a>(routes: impl Iterator<Item = &'a Arc<Range>>) -> Vec<u64> {
    routes.map(|route| route.0).collect()
}

fn key(bytes: &[u8]) -> GlobalKey<'_> {
    GlobalKey::from_bytes(bytes)
}

fn three() -> RouteMap<Range> {
    RouteMap::from_sorted(vec![
        Range::new(1, b"b", Some(b"d")),
        Range::new(2, b"d", Some(b"f")),
        Range::new(3, b"h", None),
    ])
    .unwrap()
}

#[test]
fn key_maps_to_its_route() {
    let map = three();
    for (bytes, expected) in [
        (&b""[..], None),
        (b"a\xff", None),
        (b"b", Some(1)),
        (b"c\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(1)),
        (b"d", Some(2)),
        (b"f", None),
        (b"h", Some(3)),
        (b"\xff", Some(3)),
    ] {
        assert_eq!(map.get(key(bytes)).map(|route| route.0), expected, "{bytes:?}");
    }
    assert_eq!(map.with_id(RegionId(2)).unwrap().1, b"d");
    assert!(map.with_id(RegionId(4)).is_none());
}

#[test]
fn range_maps_to_intersecting_routes() {
    let map = three();
    let found = |start: &[u8], end: Option<&[u8]>| {
        ids(map.intersecting(key(start), end.map(GlobalKey::from_bytes)))
    };
    assert_eq!(found(b"", None), [1, 2, 3]);
    assert_eq!(found(b"", Some(b"b")), [0; 0]);
    assert_eq!(found(b"", Some(b"b\0")), [1]);
    assert_eq!(found(b"c", Some(b"d")), [1]);
    assert_eq!(found(b"c", Some(b"e")), [1, 2]);
    assert_eq!(found(b"f", Some(b"h")), [0; 0]);
    assert_eq!(found(b"g", None), [3]);
    assert_eq!(found(b"z", None), [3]);
}

#[test]
fn each_invalid_set_of_routes_has_its_own_error() {
    let (one, two) = (RegionId(1), RegionId(2));
    for (routes, error) in [
        (
            // A duplicate id is found before the order, and the order before an overlap.
            vec![
                Range::new(1, b"d", None),
                Range::new(2, b"a", Some(b"e")),
                Range::new(1, b"x", None),
            ],
            RouteError::DuplicateRouteId(one),
        ),
        (
            vec![
                Range::new(5, b"a", Some(b"c")),
                Range::new(6, b"b", Some(b"e")),
                Range::new(1, b"x", None),
                Range::new(2, b"x", None),
            ],
            RouteError::Order(one, two),
        ),
        (
            vec![Range::new(1, b"a", Some(b"c")), Range::new(2, b"b", None)],
            RouteError::Overlap(one, two),
        ),
        (vec![Range::new(1, b"a", None), Range::new(2, b"b", None)], RouteError::Order(one, two)),
    ] {
        assert_eq!(RouteMap::from_sorted(routes).unwrap_err(), error);
    }
}

#[test]
fn insert_that_overlaps_a_neighbour_changes_nothing() {
    let mut map = three();
    for (route, error) in [
        (Range::new(3, b"f", Some(b"g")), RouteError::DuplicateRouteId(RegionId(3))),
        (Range::new(9, b"e", Some(b"g")), RouteError::Overlap(RegionId(2), RegionId(9))),
        (Range::new(9, b"d", Some(b"e")), RouteError::Overlap(RegionId(2), RegionId(9))),
        (Range::new(9, b"f", Some(b"i")), RouteError::Overlap(RegionId(9), RegionId(3))),
        (Range::new(9, b"a", None), RouteError::Overlap(RegionId(9), RegionId(1))),
        (Range::new(9, b"i", None), RouteError::Overlap(RegionId(3), RegionId(9))),
    ] {
        assert_eq!(map.insert(route).unwrap_err(), error);
        assert_eq!(ids(map.iter()), [1, 2, 3]);
    }
    map.insert(Range::new(9, b"f", Some(b"h"))).unwrap();
    assert_eq!(ids(map.iter()), [1, 2, 9, 3]);
}

#[test]
fn ephemeral_routes_share_an_id() {
    let mut map =
        RouteMap::from_sorted(vec![Range::new(0, b"", Some(b"m")), Range::new(0, b"m", None)])
            .unwrap();
    assert_eq!((map.len(), map.ephemeral_count()), (2, 2));
    assert!(map.with_id(RegionId(0)).is_none());
    assert_eq!(map.remove(RegionId(0)), None);
    assert_eq!(map.remove_at(key(b"m")), Some(Range::new(0, b"m", None)));
    assert_eq!(map.remove_at(key(b"x")), None, "the route before it starts at another key");
    assert_eq!(map.len(), 1);
}

#[test]
fn upserts_take_the_starts_of_shrinking_routes() {
    let mut map = three();
    map.apply(
        [RegionId(3)],
        vec![Range::new(9, b"d", Some(b"e")), Range::new(2, b"e", Some(b"f"))],
    )
    .unwrap();
    assert_eq!(ids(map.iter()), [1, 9, 2]);
    let twice = vec![Range::new(5, b"x", Some(b"y")), Range::new(5, b"y", None)];
    assert_eq!(map.clone().apply([], twice), Err(RouteError::DuplicateRouteId(RegionId(5))));
}

/// Routes of equal width over two bytes, all with the same first eight bytes if they are long.
fn tiles(count: u16, long: bool) -> Vec<Arc<Range>> {
    let head: &[u8] = if long { b"the same beginning " } else { b"" };
    let bound = |number: u16| [head, &number.to_be_bytes()].concat();
    let tile =
        |number: u16| Range::new(u64::from(number) + 1, &bound(number), Some(&bound(number + 1)));
    (0..count).map(tile).collect()
}

#[test]
fn lookups_agree_whatever_the_starts_share() {
    for long in [false, true] {
        let tiles = tiles(3_000, long);
        let map = RouteMap::from_sorted(tiles.clone()).unwrap();
        map.chunks.assert_valid();
        for tile in &tiles {
            assert_eq!(map.get(tile.start()), Some(tile));
            let inside = [tile.1.as_slice(), &[1]].concat();
            assert_eq!(map.get(key(&inside)), Some(tile));
        }
        assert_eq!(ids(map.iter()), (1..=3_000).collect::<Vec<_>>());
    }
}

#[test]
fn chunks_split_and_join_with_their_routes() {
    let count = 4 * MOST;
    let mut map = RouteMap::default();
    for tile in tiles(count as u16, true) {
        map.insert(tile).unwrap();
    }
    map.chunks.assert_valid();
    let full = map.chunks.chunk_count();
    assert!((4..=9).contains(&full), "{full}");
    let before = map.clone();
    for id in 1..=count as u64 {
        if !id.is_multiple_of(16) {
            map.remove(RegionId(id)).unwrap();
        }
    }
    map.chunks.assert_valid();
    assert_eq!(map.len(), count / 16);
    assert!(map.chunks.chunk_count() <= count / 16 / LEAST + 1, "{}", map.chunks.chunk_count());
    assert_eq!(before.len(), count, "a clone does not change");
    before.chunks.assert_valid();
    let rest: Vec<RegionId> = map.iter().map(|route| route.id()).collect();
    for id in rest {
        map.remove(id);
    }
    assert!(map.is_empty() && map.chunks.chunk_count() == 0);
}

#[test]
fn route_that_absorbs_its_successor_is_found() {
    for long in [false, true] {
        let tiles = tiles(2 * MOST as u16, long);
        let map = RouteMap::from_sorted(tiles.clone()).unwrap();
        assert!(map.chunks.chunk_count() > 1, "some successors are the first of a chunk");
        for pair in tiles.windows(2) {
            let [left, right] = pair else { continue };
            let joined = Range::new(left.0, &left.1, right.2.as_deref());
            let mut after = map.clone();
            after.apply([RegionId(right.0)], vec![joined.clone()]).unwrap();
            assert_eq!(after.get(right.start()), Some(&joined));
        }
    }
}

/// Returns routes with few different bounds, so that they are often adjacent or overlap.
fn any_range() -> impl Strategy<Value = Range> {
    let bound = || vec(0u8..4, 0..11);
    (1u64..30, bound(), proptest::option::of(bound())).prop_filter_map(
        "empty",
        |(id, a, b)| match b {
            Some(b) if b == a => None,
            Some(b) => Some(Range(id, a.clone().min(b.clone()), Some(a.max(b)))),
            None => Some(Range(id, a, None)),
        },
    )
}

proptest! {
    #[test]
    fn map_agrees_with_a_list(
        steps in vec((any_range(), any::<bool>()), 1..80), keys in vec(vec(0u8..4, 0..11), 1..20),
    ) {
        let mut map = RouteMap::default();
        let mut list: Vec<Range> = Vec::new();
        for (range, inserts) in steps {
            if inserts {
                let is_free = list.iter().all(|old| old.0 != range.0 && !old.overlaps(&range));
                prop_assert_eq!(map.insert(Arc::new(range.clone())).is_ok(), is_free);
                if is_free {
                    list.push(range);
                    list.sort_by(|left, right| left.1.cmp(&right.1));
                }
            } else {
                let known = list.iter().position(|old| old.0 == range.0);
                let known = known.map(|at| list.remove(at));
                let removed = map.remove(RegionId(range.0)).map(|route| route.as_ref().clone());
                prop_assert_eq!(removed, known);
            }
            map.chunks.assert_valid();
            prop_assert!(map.iter().map(Arc::as_ref).eq(&list));
        }
        for bytes in &keys {
            let holds = |route: &&Range| route.start() <= key(bytes) && route.reaches(key(bytes));
            prop_assert_eq!(map.get(key(bytes)).map(Arc::as_ref), list.iter().find(holds));
        }
        for pair in keys.windows(2) {
            let asked = Range(0, pair[0].clone(), Some(pair[1].clone()));
            let found = map.intersecting(asked.start(), asked.end());
            let expected = list.iter().filter(|route| pair[0] < pair[1] && route.overlaps(&asked));
            if pair[0] < pair[1] {
                prop_assert!(found.map(Arc::as_ref).eq(expected));
            }
        }
    }
}
