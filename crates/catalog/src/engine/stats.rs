//! Statistics of an engine.

use tidewater_common::ids::{CatalogVersion, RegionId};

use super::RouteLoad;
use super::state::EngineState;
use crate::KeyedRoute;

/// Most routes that the statistics name.
const MAX_HOT_ROUTES: usize = 16;

/// Sums over the routes of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStats {
    /// Version of the catalog.
    pub version: CatalogVersion,
    /// Number of routes.
    pub routes: usize,
    /// Number of ephemeral routes among them.
    pub ephemeral_routes: usize,
    /// Number of versions for which the engine has the routes, among them the newest.
    pub kept_versions: usize,
    /// Accesses to all routes. Those of routes that exist no more are not included.
    pub load: RouteLoad,
    /// Routes at or above the threshold, hottest first, at most 16.
    pub hot: Vec<HotRoute>,
}

/// A route whose score has reached the threshold. The engine reports it and changes nothing: whether a route is split
/// is decided by the meta leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotRoute {
    /// Id of the route; 0: it is ephemeral.
    pub route: RegionId,
    /// First key of the route.
    pub start: Vec<u8>,
    /// Accesses to the route.
    pub load: RouteLoad,
}

impl EngineStats {
    pub(super) fn of(state: &EngineState, threshold: u64) -> Self {
        let mut stats = Self {
            version: state.position.version,
            routes: state.routes.len(),
            ephemeral_routes: state.routes.ephemeral_count(),
            kept_versions: state.kept_versions(),
            load: RouteLoad::default(),
            hot: Vec::new(),
        };
        for route in state.routes.iter() {
            let load = route.load();
            stats.load.add(&load);
            if load.score() >= threshold {
                let start = route.descriptor().start.clone();
                stats.hot.push(HotRoute { route: route.id(), start, load });
                // Bounded, whatever the number of routes at the threshold.
                if stats.hot.len() >= 2 * MAX_HOT_ROUTES {
                    keep_hottest(&mut stats.hot);
                }
            }
        }
        keep_hottest(&mut stats.hot);
        stats
    }
}

fn keep_hottest(hot: &mut Vec<HotRoute>) {
    hot.sort_by_key(|route| std::cmp::Reverse(route.load.score()));
    hot.truncate(MAX_HOT_ROUTES);
}
