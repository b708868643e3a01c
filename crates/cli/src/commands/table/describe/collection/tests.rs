use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    LagWriteFrontier, ReadHold, ReadPolicy, RegionInfo, read_policy::Policy,
};

use super::*;

const BEGIN_MS: u64 = 1_800_000_000_000;

fn epochs() -> TableEpochs {
    TableEpochs { since: Epoch::at_ms(BEGIN_MS), upper: Epoch::at_ms(BEGIN_MS + 90_000) }
}

fn frontiers() -> CollectionFrontiers {
    let lag = LagWriteFrontier { lag_ms: 3_600_000, granularity_ms: 0 };
    let policy = ReadPolicy { policy: Some(Policy::LagWriteFrontier(lag)) };
    CollectionFrontiers {
        since: 7,
        upper: 20,
        policy: Some(policy),
        holds: 3,
        capabilities: 1,
        ..CollectionFrontiers::default()
    }
}

fn listed() -> Vec<ListedHold> {
    let hold = |name: &str, epoch| {
        let hold = ReadHold { name: name.to_owned(), epoch, ..ReadHold::default() };
        ListedHold { hold: Some(hold), ..ListedHold::default() }
    };
    vec![hold("a", 9), hold("b", 5), hold("c", 5), hold("d", 3)]
}

fn costs() -> TableHoldCosts {
    let cost = |versions| HoldCost { versions, bytes: 1_024 * versions };
    TableHoldCosts {
        by_epoch: [(Epoch(3), cost(1_000)), (Epoch(5), cost(234)), (Epoch(9), cost(0))].into(),
    }
}

#[test]
fn collection_has_stable_json_fields() {
    let TableEpochs { since, upper } = epochs();
    let first = || listed().into_iter().take(1).collect::<Vec<_>>();
    let json = |costs: Option<&TableHoldCosts>| {
        let held_by = table_holds(first(), costs);
        let collection = Collection::new(Some(epochs()), &frontiers(), held_by);
        serde_json::to_string(&collection).unwrap()
    };
    let expected = |freed: &str| {
        format!(
            r#"{{"since":{since},"upper":{upper},"lag_ms":90000,"policy":"lag 1h","capabilities":1,"holds":1,"held_by":[{{"name":"a","epoch":9,{freed}}}]}}"#
        )
    };
    assert_eq!(json(None), expected(r#""freed_versions":null,"freed_bytes":null"#));
    let freed = r#""freed_versions":1234,"freed_bytes":1263616"#;
    assert_eq!(json(Some(&costs())), expected(freed));
}

#[test]
fn collection_shows_epochs_policy_and_holds() {
    let collection = Collection::new(Some(epochs()), &frontiers(), table_holds(listed(), None));
    let lines = collection.lines();
    let TableEpochs { since, upper } = epochs();
    let readable = format!("epochs       {since} to {} can be read", upper.previous());
    assert_eq!(lines[0], format!("{readable}: the last 1m 30s"));
    assert_eq!(lines[1..], ["policy       lag 1h", "held by      4 holds, 1 capability"]);
    let shown = collection.hold_table().unwrap();
    let rows: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected =
        [["HOLD", "EPOCH"], ["d", "3"], ["b", "5"], ["c", "5"], ["a", "9"]].map(|row| row.to_vec());
    assert_eq!(rows, expected);
}

#[test]
fn hold_shows_versions_that_its_end_frees() {
    let holds = table_holds(listed(), Some(&costs()));
    let cells: Vec<Vec<String>> = holds.iter().map(TableHold::cells).collect();
    let freed: Vec<&[String]> = cells.iter().map(|cells| &cells[2..]).collect();
    assert_eq!(freed[0], ["1,000", "1000.0 KiB"]);
    for later in &freed[1..] {
        assert_eq!(*later, ["1,234", "1.2 MiB"]);
    }
    let collection = Collection::new(None, &frontiers(), holds);
    assert!(collection.hold_table().unwrap().contains("FREED VERSIONS"));
}

#[test]
fn table_without_holds_shows_their_number() {
    let frontiers = CollectionFrontiers::default();
    for costs in [None, Some(&TableHoldCosts::default())] {
        let collection = Collection::new(None, &frontiers, table_holds(Vec::new(), costs));
        assert_eq!(
            collection.lines(),
            ["policy       default", "held by      0 holds, 0 capabilities"]
        );
        assert_eq!(collection.hold_table(), None);
    }
}

fn region(since: u64, upper: u64) -> TableRegion {
    let report = RegionInfo { since, upper, ..RegionInfo::default() };
    TableRegion { region: RegionId(1), report: Ok(report) }
}

#[test]
fn epochs_are_those_of_all_regions() {
    let regions = [region(8, 21), region(9, 19)];
    let of_regions = TableEpochs { since: Epoch(9), upper: Epoch(19) };
    assert_eq!(epochs_of(false, &frontiers(), &regions), Some(of_regions));
    let of_leader = TableEpochs { since: Epoch(7), upper: Epoch(20) };
    assert_eq!(epochs_of(true, &frontiers(), &regions), Some(of_leader));
}

#[test]
fn unreported_epochs_are_null() {
    let silent = TableRegion { region: RegionId(2), report: Err("no answer".to_owned()) };
    for regions in [vec![region(8, 21), silent], vec![region(0, 0)]] {
        let unknown = epochs_of(false, &frontiers(), &regions);
        let collection = Collection::new(unknown, &frontiers(), Vec::new());
        assert_eq!((collection.since, collection.upper, collection.lag_ms), (None, None, None));
        assert_eq!(collection.epochs_line(), None);
    }
}

#[test]
fn epochs_without_history_or_begin_are_shown() {
    let line = |since, upper| {
        let epochs = TableEpochs { since, upper };
        Collection::new(Some(epochs), &frontiers(), Vec::new()).epochs_line().unwrap()
    };
    let upper = epochs().upper;
    let none = format!("epochs       none can be read, the current one is {upper}");
    assert_eq!(line(upper, upper), none);
    let without_begin = format!("epochs       0 to {} can be read", upper.previous());
    assert_eq!(line(Epoch(0), upper), without_begin);
}

#[test]
fn only_refreshable_tables_have_no_collection() {
    let refused = |reason| ClientError::Refused {
        what: "collection frontiers".to_owned(),
        refusal: Box::new(Refusal::new(reason, "refused")),
    };
    assert!(is_refreshable(&refused(Reason::TableRefreshable)));
    for other in [Reason::TableNotFound, Reason::Unavailable] {
        assert!(!is_refreshable(&refused(other)));
    }
    assert!(!is_refreshable(&ClientError::TableNotFound("t".to_owned())));
}
