//! Tables and holds of the measurement, by their numbers from 0.

use std::time::Duration;

use tidewater_client::AcquireHold;
use tidewater_client::admin::{NewColumn, NewTable};

/// Length of the leases, which no call renews: longer than a run takes. The holds of a run that has ended early expire.
const LEASE: Duration = Duration::from_secs(2 * 3_600);

/// Returns the name of a table or of a hold.
pub(super) fn name(number: u64) -> String {
    format!("hold_bench_{number}")
}

/// Returns the definition of a table: two columns, one region.
pub(super) fn table(number: u64) -> NewTable {
    let columns =
        vec![NewColumn::new("id", "int64", false), NewColumn::new("value", "float64", true)];
    NewTable { regions: 1, ..NewTable::upsert(&name(number), columns, &["id"]) }
}

/// Returns a hold of one of the tables, at the earliest epoch that it can be read at.
pub(super) fn hold(number: u64, tables: u64) -> AcquireHold {
    AcquireHold {
        name: name(number),
        holder: "tidewater bench holds".to_owned(),
        tables: vec![name(number % tables.max(1))],
        epoch: None,
        lease: LEASE,
        like: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn holds_are_spread_evenly_over_all_tables() {
        let mut holds_of = BTreeMap::new();
        for number in 0..8 {
            let hold = hold(number, 4);
            assert_eq!((hold.name, hold.tables.len()), (format!("hold_bench_{number}"), 1));
            *holds_of.entry(hold.tables[0].clone()).or_insert(0) += 1;
        }
        let expected = (0..4).map(|number| (table(number).name, 2)).collect();
        assert_eq!(holds_of, expected);
    }

    #[test]
    fn lease_is_one_that_the_cluster_grants() {
        let granted = AcquireHold::MIN_LEASE..=AcquireHold::MAX_LEASE;
        assert!(granted.contains(&hold(0, 1).lease));
    }
}
