//! Routes for the tests of this crate.

use tidewater_common::ids::{Epoch, GroupId, Incarnation, RegionId};

use crate::{RouteDescriptor, RouteState};

/// Returns an active route of group 1.
pub(crate) fn route(id: u64, start: &[u8], end: Option<&[u8]>) -> RouteDescriptor {
    RouteDescriptor {
        route_id: RegionId(id),
        start: start.to_vec(),
        end: end.map(<[u8]>::to_vec),
        group_id: GroupId(1),
        state: RouteState::Active,
        parent_route_id: None,
        epoch: Epoch(0),
        incarnation: Incarnation::FIRST,
    }
}

/// Returns a route none of whose fields has its usual value.
pub(crate) fn unusual_route() -> RouteDescriptor {
    RouteDescriptor {
        group_id: GroupId(2),
        state: RouteState::WriteFenced,
        parent_route_id: Some(RegionId(1)),
        epoch: Epoch(9),
        ..route(3, &[0, 0, 0, 1], Some(&[0, 0, 0, 2]))
    }
}
