//! Hot routes and their split keys.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use tidewater_common::ids::RegionId;
use tidewater_common::keys::split_global_key;

use super::median::{Samples, SplitKey, split_key};
use super::{HOT_WINDOWS, RouteAction, RouteAdvice, is_free};
use crate::catalog::{MetaState, RouteDescriptor};
use crate::leader::observations::ObservedLoads;

/// Returns the hot routes, with the highest scores first, and the operations on them.
pub(super) fn hot_routes(
    state: &MetaState,
    loads: &ObservedLoads,
    resting: &BTreeSet<RegionId>,
) -> Vec<RouteAdvice> {
    let mut advice: Vec<RouteAdvice> = Vec::new();
    for group in loads.groups.keys() {
        let Some(windows) = loads.last(*group, HOT_WINDOWS) else { continue };
        for route in windows[0].routes.keys().filter(|route| !resting.contains(*route)) {
            // A route that has left the group is in its old windows only.
            let route = state.route(*route).filter(|route| route.group_id == *group);
            advice.extend(route.and_then(|route| hot(state, loads, route)));
        }
    }
    advice.sort_by_key(|advice| (Reverse(advice.score), advice.route));
    advice
}

fn hot(state: &MetaState, loads: &ObservedLoads, route: &RouteDescriptor) -> Option<RouteAdvice> {
    let settings = state.balance();
    let windows = loads.last(route.group_id, HOT_WINDOWS)?;
    let of_route = || windows.iter().map(|window| window.routes.get(&route.route_id));
    let scores: Option<Vec<u64>> = of_route().map(|load| load.map(|load| load.score)).collect();
    let score = scores?.into_iter().min()?;
    let (table, start) = split_global_key(&route.start)?;
    if score <= settings.split_score || !is_free(state, table, route) {
        return None;
    }
    let samples = of_route().flatten().map(|load| Samples {
        keys: load.keys.clone(),
        weight: load.score / load.keys.len().max(1) as u64,
    });
    let end = route.end.as_deref().and_then(split_global_key);
    let end = end.filter(|(of, _)| *of == table).map(|(_, key)| key);
    let action = match split_key(samples.collect(), start, end) {
        SplitKey::Unknown => return None,
        SplitKey::None => RouteAction::NoSplitKey,
        SplitKey::At(_) if state.routes_of(table).count() as u64 >= settings.max_routes => {
            RouteAction::TooManyRoutes
        }
        SplitKey::At(key) => RouteAction::Split { key },
    };
    Some(RouteAdvice { route: route.route_id, table, action, score })
}
