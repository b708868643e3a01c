//! Hook reports for the meta service: one report per hook of the catalog, summed over all hook
//! lists that contain it.

use std::collections::BTreeMap;

use tidewater_proto::v1;
use tidewater_region_engine::hooks::{HookSpec, HookState, HookStatus};

/// Sums the status by name and generation. Hooks outside the catalog are left out: no user can
/// query them.
pub(super) fn reports(statuses: Vec<(HookSpec, HookStatus)>) -> Vec<v1::HookReport> {
    let mut reports: BTreeMap<(String, u64), v1::HookReport> = BTreeMap::new();
    for (spec, status) in statuses.into_iter().filter(|(spec, _)| spec.generation != 0) {
        let name = spec.name;
        let generation = spec.generation;
        let report = reports.entry((name.clone(), generation)).or_insert_with(|| v1::HookReport {
            name,
            generation,
            ..v1::HookReport::default()
        });
        // States are ordered from good to bad.
        report.state = report.state.max(state(status.state).into());
        report.calls = report.calls.saturating_add(status.calls);
        report.failures = report.failures.saturating_add(status.failures);
        report.skipped = report.skipped.saturating_add(status.skipped);
        report.backlog = report.backlog.saturating_add(status.backlog);
        if let Some(error) = status.last_error {
            report.last_error = error;
        }
    }
    reports.into_values().collect()
}

fn state(state: HookState) -> v1::HookState {
    match state {
        HookState::Active => v1::HookState::Active,
        HookState::Paused => v1::HookState::Paused,
        HookState::Suspended => v1::HookState::Suspended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(generation: u64, state: HookState, error: Option<&str>) -> (HookSpec, HookStatus) {
        let name = "a".to_owned();
        let kind = "jsonl".to_owned();
        let config = serde_json::Value::Null;
        let status = HookStatus {
            name: name.clone(),
            kind: Some(kind.clone()),
            table: None,
            state,
            calls: 5,
            failures: 2,
            skipped: 1,
            backlog: 3,
            last_error: error.map(str::to_owned),
        };
        (HookSpec { name, kind, config, durable: false, generation }, status)
    }

    #[test]
    fn hook_in_several_lists_has_one_report() {
        let reports = reports(vec![
            hook(4, HookState::Suspended, Some("late")),
            hook(4, HookState::Active, None),
            hook(7, HookState::Active, None),
            hook(0, HookState::Active, None),
        ]);
        let expected = v1::HookReport {
            name: "a".into(),
            generation: 4,
            state: v1::HookState::Suspended.into(),
            calls: 10,
            failures: 4,
            skipped: 2,
            backlog: 6,
            last_error: "late".into(),
        };
        assert_eq!(reports[0], expected);
        assert_eq!((reports.len(), reports[1].generation, reports[1].calls), (2, 7, 5));
    }
}
