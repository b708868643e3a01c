//! A hold, for output.

use std::time::Duration;

use serde::Serialize;
use tidewater_client::Client;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1::{ListedHold, ReadHold};

use crate::output::Listed;
use crate::output::amount::duration_text;

/// A hold. The JSON field names are stable; times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct HeldLine {
    pub(super) name: String,
    holder: String,
    /// Names of its tables, in the order of their ids.
    pub(super) tables: Vec<String>,
    pub(super) epoch: u64,
    /// Time since the begin of the epoch; null if the time of the cluster is not known, or for an epoch without begin.
    epoch_age_ms: Option<u64>,
    /// Time of the acquisition, since the Unix epoch.
    acquired_ms: u64,
    /// Null for a hold that does not expire, as that of an export.
    lease_ms: Option<u64>,
    /// Time of the cluster at which the hold expires unless it is renewed, since the Unix epoch; null if it does not expire.
    lease_end_ms: Option<u64>,
    /// Time until then; null if it does not expire, or the time of the cluster is not known.
    lease_left_ms: Option<u64>,
}

impl HeldLine {
    /// Returns the line of a hold that a call of a client has returned.
    pub(super) fn returned(client: &Client, hold: ReadHold) -> Self {
        let catalog = client.catalog();
        let tables = table_names(&hold, |id| catalog.table(id).map(|table| table.name.clone()));
        Self::new(hold, tables)
    }

    /// Returns the line of a hold of a list. `now_ms`: time of the cluster.
    pub(super) fn listed(listed: ListedHold, now_ms: u64) -> Self {
        let hold = listed.hold.unwrap_or_default();
        let begin_ms = Epoch(hold.epoch).ms();
        Self {
            epoch_age_ms: begin_ms.map(|begin_ms| now_ms.saturating_sub(begin_ms)),
            lease_left_ms: expiring(hold.lease_end_ms).map(|_| listed.left_ms),
            ..Self::new(hold, listed.tables)
        }
    }

    fn new(hold: ReadHold, tables: Vec<String>) -> Self {
        Self {
            name: hold.name,
            holder: hold.holder,
            tables,
            epoch: hold.epoch,
            epoch_age_ms: None,
            acquired_ms: hold.acquired_ms,
            lease_ms: expiring(hold.lease_ms),
            lease_end_ms: expiring(hold.lease_end_ms),
            lease_left_ms: None,
        }
    }
}

/// Returns whether a hold has a lease. That of an export does not expire.
pub(crate) fn has_lease(hold: &ReadHold) -> bool {
    expiring(hold.lease_ms).is_some()
}

/// Returns the length or end of a lease; `None`: the hold does not expire.
fn expiring(ms: u64) -> Option<u64> {
    (ms != u64::MAX).then_some(ms)
}

/// Returns the names of the tables of a hold. `name`: that of a table; `None`: the catalog does not have it yet.
fn table_names(hold: &ReadHold, name: impl Fn(TableId) -> Option<String>) -> Vec<String> {
    let ids = hold.table_ids.iter().copied().map(TableId);
    ids.map(|id| name(id).unwrap_or_else(|| format!("table id {id}"))).collect()
}

impl Listed for HeldLine {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "HOLDER", "TABLES", "EPOCH", "AGE", "LEASE LEFT"];

    fn cells(&self) -> Vec<String> {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let span = |ms: Option<u64>| {
            ms.map_or_else(|| "-".to_owned(), |ms| duration_text(Duration::from_millis(ms)))
        };
        let left = match self.lease_end_ms {
            Some(_) => span(self.lease_left_ms),
            None => "no end".to_owned(),
        };
        vec![
            self.name.clone(),
            dash(&self.holder),
            self.tables.join(","),
            self.epoch.to_string(),
            span(self.epoch_age_ms),
            left,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn hold() -> ReadHold {
        ReadHold {
            name: "h".into(),
            holder: "ops@db-1".into(),
            table_ids: vec![3, 5],
            epoch: Epoch::at_ms(NOW_MS - 90_000).get(),
            lease_ms: 60_000,
            lease_end_ms: NOW_MS + 30_000,
            acquired_ms: NOW_MS - 30_000,
            ..ReadHold::default()
        }
    }

    fn listed(hold: ReadHold) -> HeldLine {
        let tables = vec!["t".into(), "u".into()];
        HeldLine::listed(ListedHold { hold: Some(hold), tables, left_ms: 30_000 }, NOW_MS)
    }

    /// Returns the JSON of the hold with these times.
    fn json(epoch_age_ms: &str, lease_left_ms: &str) -> String {
        let epoch = hold().epoch;
        format!(
            r#"{{"name":"h","holder":"ops@db-1","tables":["t","u"],"epoch":{epoch},"epoch_age_ms":{epoch_age_ms},"acquired_ms":1799999970000,"lease_ms":60000,"lease_end_ms":1800000030000,"lease_left_ms":{lease_left_ms}}}"#
        )
    }

    #[test]
    fn hold_of_a_list_has_stable_json_fields() {
        let line = listed(hold());
        assert_eq!(serde_json::to_string(&line).unwrap(), json("90000", "30000"));
        let cells = line.cells();
        assert_eq!(cells[..3], ["h", "ops@db-1", "t,u"]);
        assert_eq!(cells[4..], ["1m 30s", "30.0 s"]);
    }

    #[test]
    fn returned_hold_has_the_same_json_fields() {
        let tables = vec!["t".to_owned(), "u".to_owned()];
        let line = HeldLine::new(hold(), tables);
        assert_eq!(serde_json::to_string(&line).unwrap(), json("null", "null"));
        assert_eq!(line.cells()[4..], ["-", "-"]);
    }

    #[test]
    fn hold_without_begin_has_no_age() {
        let line = listed(ReadHold { epoch: 0, ..hold() });
        assert_eq!((line.epoch_age_ms, line.cells()[4].as_str()), (None, "-"));
    }

    #[test]
    fn hold_of_an_export_does_not_expire() {
        let (lease_ms, lease_end_ms) = (u64::MAX, u64::MAX);
        let of_export = ReadHold { lease_ms, lease_end_ms, ..hold() };
        assert!(!has_lease(&of_export) && has_lease(&hold()));
        let line = listed(of_export);
        assert_eq!((line.lease_ms, line.lease_end_ms, line.lease_left_ms), (None, None, None));
        assert_eq!(line.cells()[5], "no end");
    }

    #[test]
    fn table_without_known_name_is_shown_by_its_id() {
        let name = |id: TableId| (id == TableId(3)).then(|| "t".to_owned());
        assert_eq!(table_names(&hold(), name), ["t", "table id 5"]);
    }
}
