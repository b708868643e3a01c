//! Routes: ranges of global keys and the groups that serve them.

use bytes::Bytes;
use tidewater_common::ids::{Epoch, GroupId, Incarnation, RegionId};
use tidewater_proto::v1;

use super::CatalogError;

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

impl TryFrom<u8> for RouteState {
    type Error = CatalogError;

    fn try_from(stored: u8) -> Result<Self, CatalogError> {
        Ok(match stored {
            0 => Self::Active,
            1 => Self::WriteFenced,
            2 => Self::MigratingSource,
            3 => Self::MigratingTarget,
            other => return Err(CatalogError::InvalidState(other)),
        })
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
    /// Checks the invariants of a single route.
    pub fn validate(&self) -> Result<(), CatalogError> {
        if self.route_id.get() == 0 {
            return Err(CatalogError::RouteIdRequired);
        }
        if self.group_id == GroupId::META {
            return Err(CatalogError::GroupIdRequired(self.route_id));
        }
        match &self.end {
            Some(end) if *end <= self.start => Err(CatalogError::InvalidRange(self.route_id)),
            _ => Ok(()),
        }
    }
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
