//! Settings of the balance of routes.

use tidewater_proto::v1;

use super::CommandError;
use crate::catalog::{BalanceSettings, CatalogChange, MetaState};

/// Shortest rest of a route: a move takes up to a second.
const MIN_REST_MS: u64 = 1_000;
/// Longest rest of a route: the operations of the last 24 h are known.
const MAX_REST_MS: u64 = 24 * 60 * 60 * 1_000;

/// Changes the settings that a request names.
pub(super) fn set(
    state: &MetaState,
    request: &v1::SetBalanceRequest,
) -> Result<CatalogChange, CommandError> {
    let known = state.balance();
    let settings = BalanceSettings {
        spread: request.spread.unwrap_or(known.spread),
        rest_ms: request.rest_ms.unwrap_or(known.rest_ms),
    };
    if !(MIN_REST_MS..=MAX_REST_MS).contains(&settings.rest_ms) {
        return Err(CommandError::BalanceRest(settings.rest_ms));
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
        Kind::SetBalance(v1::SetBalanceRequest { spread, rest_ms })
    }

    #[test]
    fn named_settings_are_changed_and_stored() {
        let mut state = with_nodes(1);
        raise_to_highest(&mut state);
        let default = BalanceSettings::default();
        let rows = state.rows().unwrap();
        for (named, expected) in [
            (request(Some(false), None), BalanceSettings { spread: false, ..default }),
            (request(None, Some(5_000)), BalanceSettings { spread: false, rest_ms: 5_000 }),
            (request(None, None), BalanceSettings { spread: false, rest_ms: 5_000 }),
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
            assert_eq!(refused, CommandError::BalanceRest(rest_ms));
            assert!(refused.to_string().contains("1s to 24h"), "{refused}");
        }
    }
}
