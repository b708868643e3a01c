use std::time::Duration;

use clap::Parser;
use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::CollectionFrontiers;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// Returns the changes of a command line, as epochs and differences; `None`: it is invalid.
fn changes(arguments: &str) -> Option<Vec<(u64, i64)>> {
    let words = ["capabilities", "t"].into_iter().chain(arguments.split_whitespace());
    let of = Line::try_parse_from(words).ok()?.options.changes();
    assert_eq!(of.table, "t");
    Some(of.changes.into_iter().map(|change| (change.epoch, change.difference)).collect())
}

fn refused(reason: Reason) -> ClientError {
    let refusal = Box::new(Refusal::new(reason, "scripted"));
    ClientError::Refused { what: "changing read capabilities".to_owned(), refusal }
}

#[test]
fn options_add_and_take_away_capabilities() {
    for (arguments, expected) in [
        ("--add 7", &[(7, 1)][..]),
        ("--remove 7", &[(7, -1)]),
        ("--add 7 --add 7 --add 9", &[(7, 1), (7, 1), (9, 1)]),
        ("--remove 7 --add 9 --add 8", &[(9, 1), (8, 1), (7, -1)]),
        ("--add 7 --remove 7", &[(7, 1), (7, -1)]),
    ] {
        assert_eq!(changes(arguments).as_deref(), Some(expected), "{arguments}");
    }
}

#[test]
fn command_without_valid_changes_is_refused() {
    for arguments in ["", "--add", "--add soon", "--remove -1", "--add 7 9"] {
        assert_eq!(changes(arguments), None, "{arguments}");
    }
}

#[test]
fn changed_table_shows_capabilities_and_frontiers() {
    let frontiers = |capabilities| CollectionFrontiers {
        table_id: 3,
        table: "t".into(),
        since: Epoch(7).get(),
        upper: Epoch(9).get(),
        capabilities,
        ..CollectionFrontiers::default()
    };
    for (number, shown) in
        [(0, "0 capabilities"), (1, "1 capability"), (1_200, "1,200 capabilities")]
    {
        let line = CollectionLine::from(frontiers(number));
        let expected = format!("table t has {shown}; since is 7, and upper is 9");
        assert_eq!(text(&line), expected);
        let json = serde_json::to_string(&line).unwrap();
        let part = format!(
            r#""since":7,"upper":9,"lag_ms":0,"policy":"default","holds":0,"oldest_hold":null,"oldest_hold_epoch":null,"capabilities":{number},"#
        );
        assert!(json.contains(&part), "{json}");
    }
}

#[test]
fn dropped_table_has_stable_json_fields() {
    let dropped = DroppedTable { table: "t".to_owned(), state: "dropped" };
    assert_eq!(serde_json::to_string(&dropped).unwrap(), r#"{"table":"t","state":"dropped"}"#);
    assert!(is_dropped(&refused(Reason::TableNotFound)));
    assert!(!is_dropped(&refused(Reason::Unavailable)));
}

#[test]
fn unknown_outcome_names_the_remedy() {
    let unknown = ClientError::OutcomeUnknown {
        what: "changing read capabilities".to_owned(),
        attempts: 1,
        elapsed: Duration::from_secs(1),
        cause: Box::new(Refusal::new(Reason::LeadershipLost, "scripted")),
    };
    let failure = not_changed(unknown, "t");
    assert_eq!(failure.exit, Exit::Unavailable);
    for part in ["outcome unknown after 1 attempt", "table \"t\"", "may change them twice"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    let definite = not_changed(refused(Reason::InvalidCapabilities), "t");
    assert_eq!(definite.exit, Exit::Usage);
    assert!(!definite.message.contains("twice"), "{definite}");
}

#[test]
fn unseen_frontiers_leave_a_note() {
    let failure = changed_unseen(&refused(Reason::InvalidArgument), "t");
    assert_eq!(failure.exit, Exit::Unavailable);
    let text = "the capabilities of table \"t\" are changed: do not repeat the command";
    assert!(failure.message.ends_with(text), "{failure}");
}
