//! Routes: ranges of global keys and the groups that serve them.

use bytes::Bytes;
use tidewater_common::ids::{Epoch, GroupId, Incarnation, RegionId};
use tidewater_proto::v1;

use crate::{GlobalKey, KeyedRoute, RouteError};

/// State of a route, which determines the permitted operations. The numbers are stored and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RouteState {
    /// Permits all operations.
    Active = 0,
    /// Permits reads; writes are rejected and must be retried.
    WriteFenced = 1,
    /// Permits all operations except split and move.
    MigratingSource = 2,
    /// Permits no operation yet.
    MigratingTarget = 3,
}

impl RouteState {
    /// Returns the name that commands print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::WriteFenced => "write_fenced",
            Self::MigratingSource => "migrating_source",
            Self::MigratingTarget => "migrating_target",
        }
    }
}

impl TryFrom<i32> for RouteState {
    type Error = RouteError;

    fn try_from(stored: i32) -> Result<Self, RouteError> {
        Ok(match stored {
            0 => Self::Active,
            1 => Self::WriteFenced,
            2 => Self::MigratingSource,
            3 => Self::MigratingTarget,
            other => return Err(RouteError::InvalidState(other)),
        })
    }
}

impl From<v1::RouteState> for RouteState {
    fn from(state: v1::RouteState) -> Self {
        match state {
            v1::RouteState::Active => Self::Active,
            v1::RouteState::WriteFenced => Self::WriteFenced,
            v1::RouteState::MigratingSource => Self::MigratingSource,
            v1::RouteState::MigratingTarget => Self::MigratingTarget,
        }
    }
}

impl From<RouteState> for v1::RouteState {
    fn from(state: RouteState) -> Self {
        match state {
            RouteState::Active => Self::Active,
            RouteState::WriteFenced => Self::WriteFenced,
            RouteState::MigratingSource => Self::MigratingSource,
            RouteState::MigratingTarget => Self::MigratingTarget,
        }
    }
}

/// A half-open range of global keys, the group that serves it, and its state. Each route has one
/// region, with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDescriptor {
    /// Id of the route and its region. Never 0, never reused.
    pub route_id: RegionId,
    /// First global key, inclusive.
    pub start: Vec<u8>,
    /// End of the range, exclusive; `None`: unbounded.
    pub end: Option<Vec<u8>>,
    /// Group that serves the region; never the meta group.
    pub group_id: GroupId,
    /// Permitted operations.
    pub state: RouteState,
    /// The route that this one was split from, if any.
    pub parent_route_id: Option<RegionId>,
    /// Epoch of the route's creation; 0 until barriers exist.
    pub epoch: Epoch,
    /// Incarnation of the cluster at the region's creation, part of the name of its directory.
    pub incarnation: Incarnation,
}

impl RouteDescriptor {
    /// Checks the invariants of a single route of the catalog.
    ///
    /// # Errors
    /// [`RouteError::RouteIdRequired`], [`RouteError::GroupIdRequired`] or [`RouteError::InvalidRange`].
    pub fn validate(&self) -> Result<(), RouteError> {
        if self.is_ephemeral() {
            return Err(RouteError::RouteIdRequired);
        }
        self.validate_ephemeral()
    }

    /// Checks the invariants of a route that may be ephemeral.
    ///
    /// # Errors
    /// [`RouteError::GroupIdRequired`] or [`RouteError::InvalidRange`].
    pub fn validate_ephemeral(&self) -> Result<(), RouteError> {
        if self.group_id == GroupId::META {
            return Err(RouteError::GroupIdRequired(self.route_id));
        }
        match &self.end {
            Some(end) if *end <= self.start => Err(RouteError::InvalidRange(self.route_id)),
            _ => Ok(()),
        }
    }

    /// Returns whether the route has id 0: it belongs to a test or a tool, and is never stored.
    pub fn is_ephemeral(&self) -> bool {
        self.route_id == RegionId(0)
    }
}

impl KeyedRoute for RouteDescriptor {
    fn id(&self) -> RegionId {
        self.route_id
    }

    fn start(&self) -> GlobalKey<'_> {
        GlobalKey::from_bytes(&self.start)
    }

    fn end(&self) -> Option<GlobalKey<'_>> {
        self.end.as_deref().map(GlobalKey::from_bytes)
    }
}

/// Returns the least next route id of a catalog with these routes: above every id, and never 0.
///
/// # Errors
/// [`RouteError::RouteIdOverflow`].
pub fn next_route_id_floor<'a>(
    routes: impl IntoIterator<Item = &'a RouteDescriptor>,
) -> Result<RegionId, RouteError> {
    let highest = routes.into_iter().map(|route| route.route_id.get()).max().unwrap_or(0);
    highest.checked_add(1).map(RegionId).ok_or(RouteError::RouteIdOverflow)
}

impl From<&RouteDescriptor> for v1::Route {
    fn from(route: &RouteDescriptor) -> Self {
        Self {
            route_id: route.route_id.get(),
            start: Bytes::copy_from_slice(&route.start),
            end: route.end.as_deref().map(Bytes::copy_from_slice),
            group_id: route.group_id.get(),
            state: v1::RouteState::from(route.state).into(),
            parent_route_id: route.parent_route_id.map_or(0, RegionId::get),
            epoch: route.epoch.get(),
            // 0 for the first one: stored deltas keep the bytes of older releases.
            incarnation: match route.incarnation {
                Incarnation::FIRST => 0,
                later => later.get(),
            },
        }
    }
}

impl TryFrom<&v1::Route> for RouteDescriptor {
    type Error = RouteError;

    fn try_from(wire: &v1::Route) -> Result<Self, RouteError> {
        let route = Self {
            route_id: RegionId(wire.route_id),
            start: wire.start.to_vec(),
            end: wire.end.as_ref().map(|end| end.to_vec()),
            group_id: GroupId(wire.group_id),
            state: RouteState::try_from(wire.state)?,
            parent_route_id: (wire.parent_route_id != 0).then_some(RegionId(wire.parent_route_id)),
            epoch: Epoch(wire.epoch),
            incarnation: match wire.incarnation {
                0 => Incarnation::FIRST,
                later => Incarnation(later),
            },
        };
        route.validate()?;
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unusual_route as route;

    #[test]
    fn route_on_the_wire_round_trips() {
        let first = route();
        let unbounded = RouteDescriptor { end: None, parent_route_id: None, ..route() };
        let later = RouteDescriptor { incarnation: Incarnation(4), ..route() };
        for route in [first, unbounded, later] {
            assert_eq!(RouteDescriptor::try_from(&v1::Route::from(&route)), Ok(route));
        }
    }

    #[test]
    fn invalid_route_on_the_wire_has_its_own_error() {
        let wire = v1::Route::from(&route());
        for (wire, error) in [
            (v1::Route { route_id: 0, ..wire.clone() }, RouteError::RouteIdRequired),
            (v1::Route { group_id: 0, ..wire.clone() }, RouteError::GroupIdRequired(RegionId(3))),
            (
                v1::Route { end: Some(wire.start.clone()), ..wire.clone() },
                RouteError::InvalidRange(RegionId(3)),
            ),
            (v1::Route { state: 4, ..wire.clone() }, RouteError::InvalidState(4)),
            (v1::Route { state: -1, ..wire }, RouteError::InvalidState(-1)),
        ] {
            assert_eq!(RouteDescriptor::try_from(&wire), Err(error));
        }
    }

    #[test]
    fn next_route_id_is_above_every_route() {
        let with_id = |id| RouteDescriptor { route_id: RegionId(id), ..route() };
        assert_eq!(next_route_id_floor([]), Ok(RegionId(1)));
        assert_eq!(next_route_id_floor(&[with_id(7), with_id(3)]), Ok(RegionId(8)));
        assert_eq!(next_route_id_floor(&[with_id(u64::MAX)]), Err(RouteError::RouteIdOverflow));
    }
}
