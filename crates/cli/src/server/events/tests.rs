//! Tests of the options of events.

use clap::Parser;
use tidewater_events::RecordOutcome;
use tidewater_events::testing::TestEvent;

use super::*;
use crate::exit::Exit;

#[derive(Debug, Parser)]
struct Node {
    #[command(flatten)]
    events: EventArgs,
}

fn parse(arguments: &[&str]) -> Result<EventArgs, clap::Error> {
    Node::try_parse_from([&["node"][..], arguments].concat()).map(|node| node.events)
}

#[test]
fn wrong_event_options_are_refused() {
    for (arguments, words) in [
        (["--events", "kafka"], "table, jsonl, off"),
        (["--event-types", "node-up"], "is not a filter of event types"),
        (["--event-ttl", "0s"], "0ms is too short for events (minimum 1s)"),
        (["--event-ttl", "soon"], "is not a duration"),
        (["--event-spool", "0"], "0 is too small for the event spool (minimum 2MiB)"),
        (["--event-spool", "much"], "is not a size"),
    ] {
        let error = parse(&arguments).unwrap_err().to_string();
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn default_options_are_those_of_the_recorder() {
    let args = parse(&[]).unwrap();
    let defaults = EventRecorderOptions::default();
    assert_eq!(args.options().check(), Ok(()));
    assert_eq!(args.options().spool_bytes, defaults.spool_bytes);
    assert_eq!(args.table_options(), EventHandlerOptions::default());
    assert!(args.event_types.is_none());
}

#[test]
fn smallest_spool_passes_the_check_of_the_recorder() {
    let args = parse(&["--event-spool", "2MiB", "--event-ttl", "1s"]).unwrap();
    assert_eq!(args.options().check(), Ok(()));
}

#[test]
fn event_directory_follows_from_the_options() {
    let data = Some(Path::new("d"));
    let cases: [(&[&str], Option<&Path>, Option<&str>); 7] = [
        (&[], data, Some("d/events")),
        (&[], None, None),
        (&["--events", "off"], None, None),
        (&["--event-dir", "e"], data, Some("e")),
        (&["--event-dir", "e"], None, Some("e")),
        (&["--event-dir", "e", "--events", "jsonl"], None, Some("e")),
        (&["--event-dir", "e", "--events", "off"], data, None),
    ];
    for (arguments, data_dir, expected) in cases {
        let found = parse(arguments).unwrap().directory(data_dir);
        assert_eq!(found, Ok(expected.map(PathBuf::from)), "{arguments:?}");
    }
}

#[tokio::test]
async fn destination_without_a_directory_is_a_usage_error() {
    for target in ["table", "jsonl"] {
        let args = parse(&["--events", target]).unwrap();
        let failure = args.start(None, &[], ProcessProblems::default()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{target}");
        let expected = format!("--events {target} needs --event-dir: ");
        assert!(failure.message.starts_with(&expected), "{}", failure.message);
    }
    let args = parse(&[]).unwrap();
    let recorder = args.start(None, &[], ProcessProblems::default()).await.unwrap();
    let outcome = recorder.record(&TestEvent::new("lost")).await;
    assert_ne!(outcome, RecordOutcome::Spooled, "no directory, no events");
}

#[tokio::test]
async fn json_lines_have_recorded_events() {
    let data_dir = tempfile::tempdir().unwrap();
    let args = parse(&["--events", "jsonl", "--event-types", "!noise"]).unwrap();
    let problems = ProcessProblems::default();
    let recorder = args.start(Some(data_dir.path()), &[], problems.clone()).await.unwrap();
    let outcome = recorder.record(&TestEvent::new("kept")).await;
    assert_eq!(outcome, RecordOutcome::Spooled);
    assert_eq!(recorder.record(&TestEvent::new("noise")).await, RecordOutcome::Filtered);
    recorder.close().await;
    let lines = std::fs::read_to_string(data_dir.path().join("events/events.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 1);
    assert!(lines.contains(r#""type":"kept""#), "{lines}");
    assert_eq!(problems.list(), []);
}
