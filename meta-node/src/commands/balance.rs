//! Settings of the balance of routes.

use tidewater_proto::v1::{self, HotspotMode};

use super::requests::RETRY_WINDOW_MS;
use super::{CommandError, GroupCommandError};
use crate::catalog::{BalanceSettings, CatalogChange, MetaState};

/// Lowest split score: a read in a second.
const MIN_SPLIT_SCORE: u64 = 60;
/// Shortest rest of a route: a move takes up to a second.
const MIN_REST_MS: u64 = 1_000;
/// Longest rest of a route: the operations of the last hour are always known.
const MAX_REST_MS: u64 = RETRY_WINDOW_MS;

/// Changes the settings that a request names.
pub(super) fn set(
    state: &MetaState,
    request: &v1::SetBalanceRequest,
) -> Result<CatalogChange, CommandError> {
    let known = state.balance();
    let hotspots = match request.hotspots.map(HotspotMode::try_from) {
        None => known.hotspots,
        Some(Ok(mode)) if mode != HotspotMode::Unspecified => mode,
        Some(_) => {
            return Err(GroupCommandError::BalanceSetting("hotspots are off, advise or on").into());
        }
    };
    let settings = BalanceSettings {
        spread: request.spread.unwrap_or(known.spread),
        rest_ms: request.rest_ms.unwrap_or(known.rest_ms),
        hotspots,
        split_score: request.split_score.unwrap_or(known.split_score),
        max_routes: request.max_routes.unwrap_or(known.max_routes),
    };
    if settings.split_score < MIN_SPLIT_SCORE {
        let text = "a split score below 60 would split idle routes: use 60 or more";
        return Err(GroupCommandError::BalanceSetting(text).into());
    }
    if settings.max_routes == 0 {
        let text = "a table has at least one route: use a maximum of 1 or more";
        return Err(GroupCommandError::BalanceSetting(text).into());
    }
    if !(MIN_REST_MS..=MAX_REST_MS).contains(&settings.rest_ms) {
        return Err(GroupCommandError::BalanceRest(settings.rest_ms).into());
    }
    let balance = (settings != known).then_some(settings);
    Ok(CatalogChange { balance, ..CatalogChange::default() })
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{raise_to_highest, run, with_nodes};

    fn request(spread: Option<bool>, rest_ms: Option<u64>) -> Kind {
        Kind::SetBalance(v1::SetBalanceRequest { spread, rest_ms, ..Default::default() })
    }

    #[test]
    fn named_settings_are_changed_and_stored() {
        let mut state = with_nodes(1);
        raise_to_highest(&mut state);
        let default = BalanceSettings::default();
        let rows = state.rows().unwrap();
        for (named, expected) in [
            (request(Some(false), None), BalanceSettings { spread: false, ..default }),
            (
                request(None, Some(5_000)),
                BalanceSettings { spread: false, rest_ms: 5_000, ..default },
            ),
            (request(None, None), BalanceSettings { spread: false, rest_ms: 5_000, ..default }),
            (request(Some(true), Some(default.rest_ms)), default),
        ] {
            run(&mut state, named).unwrap();
            assert_eq!(state.balance(), expected);
            assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
        }
        assert_eq!(state.rows().unwrap(), rows, "the defaults have no row");
    }

    #[test]
    fn rest_outside_of_its_range_is_refused() {
        let mut state = with_nodes(1);
        raise_to_highest(&mut state);
        for rest_ms in [0, MIN_REST_MS - 1, MAX_REST_MS + 1, u64::MAX] {
            let refused = run(&mut state, request(None, Some(rest_ms))).unwrap_err();
            assert_eq!(refused, CommandError::Group(GroupCommandError::BalanceRest(rest_ms)));
            assert!(refused.to_string().contains("1s to 1h"), "{refused}");
        }
    }

    #[test]
    fn limits_of_zero_and_unknown_modes_are_refused() {
        let mut state = with_nodes(1);
        raise_to_highest(&mut state);
        let none = v1::SetBalanceRequest::default();
        for (request, text) in [
            (v1::SetBalanceRequest { split_score: Some(0), ..none }, "use 60 or more"),
            (v1::SetBalanceRequest { max_routes: Some(0), ..none }, "use a maximum of 1 or more"),
            (v1::SetBalanceRequest { hotspots: Some(0), ..none }, "off, advise or on"),
            (v1::SetBalanceRequest { hotspots: Some(9), ..none }, "off, advise or on"),
        ] {
            let refused = run(&mut state, Kind::SetBalance(request)).unwrap_err();
            assert!(refused.to_string().contains(text), "{refused}");
        }
    }
}
