mod test_calls;

use arrow::array::Array;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_events::{ExtraColumn, Value, ValueType};
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use self::test_calls::{Change, Note, TestCalls};
use super::prepare::{ATTEMPTS, LEVEL_ATTEMPTS, LEVEL_PAUSE, PAUSE};
use super::*;
use crate::testing::event;

const HINTS: [(&str, &str); 1] = [("ttl", "90d")];

fn event_table(calls: &TestCalls) -> EventTable<'_, TestCalls> {
    EventTable::new(calls, "events", TableHints::parse(HINTS).unwrap())
}

/// Returns an event with a node.
fn node_event(id: u64) -> RecordedEvent {
    let column = ExtraColumn::new("node_id", ValueType::UInt64);
    event(id, "node_down", vec![(column, Value::UInt64(id))])
}

/// Returns the number of misfits, or the text of the error, and the seconds that passed.
async fn misfits(calls: &TestCalls, events: &[&RecordedEvent]) -> (Result<usize, String>, u64) {
    let begun = Instant::now();
    let misfits = event_table(calls).misfits(events).await;
    let misfits = misfits.map(|misfits| misfits.len()).map_err(|error| error.to_string());
    (misfits, begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn table_that_stays_busy_ends_with_an_error() {
    for reason in [Reason::TableBusy, Reason::InvalidArgument] {
        let calls = TestCalls::with_table(&[]);
        calls.state().change = Change::Refused(reason);
        let (result, waited) = misfits(&calls, &[&node_event(1)]).await;
        let error = result.unwrap_err();
        assert!(error.contains("was not prepared in time"), "{error}");
        assert!(error.contains("injected"), "{error}");
        assert_eq!((calls.state().changes, waited), (ATTEMPTS, (PAUSE * ATTEMPTS).as_secs()));
    }
}

#[tokio::test(start_paused = true)]
async fn table_that_loses_columns_again_ends_with_an_error() {
    let calls = TestCalls::with_table(&[]);
    calls.state().change = Change::Lost;
    let (result, _) = misfits(&calls, &[&node_event(1)]).await;
    let error = result.unwrap_err();
    assert_eq!(error, "table events was not prepared in time");
    assert_eq!(calls.state().changes, ATTEMPTS);
}

#[tokio::test(start_paused = true)]
async fn final_refusal_ends_the_preparation() {
    let calls = TestCalls::with_table(&[]);
    calls.state().change = Change::Refused(Reason::Unsupported);
    let (result, waited) = misfits(&calls, &[&node_event(1)]).await;
    assert!(result.unwrap_err().contains("injected"));
    assert_eq!((calls.state().changes, waited), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn missing_table_is_created_with_the_columns() {
    let calls = TestCalls::default();
    calls.state().level = FeatureLevel::EVENT_TABLES;
    let (result, _) = misfits(&calls, &[&node_event(1)]).await;
    assert_eq!((result, calls.state().changes), (Ok(0), 2));
    let table = calls.state().table.clone().unwrap();
    assert!(table.schema.column_named("node_id").is_some());
}

#[tokio::test(start_paused = true)]
async fn wait_for_the_level_ends_without_it() {
    let calls = TestCalls::default();
    let (result, waited) = misfits(&calls, &[&node_event(1)]).await;
    let error = result.unwrap_err();
    assert!(error.contains("needs feature level 7"), "{error}");
    assert!(error.contains("is at level 1"), "{error}");
    assert_eq!(calls.state().levels_read, LEVEL_ATTEMPTS);
    let longest = (LEVEL_PAUSE * LEVEL_ATTEMPTS).as_secs();
    assert_eq!((calls.state().changes, waited), (0, longest));
}

#[tokio::test(start_paused = true)]
async fn table_is_created_once_the_level_is_raised() {
    let calls = TestCalls::default();
    calls.state().raised_after = Some(3);
    let (result, waited) = misfits(&calls, &[&event(1, "a", vec![])]).await;
    assert_eq!((result, calls.state().changes), (Ok(0), 1));
    assert_eq!(waited, (LEVEL_PAUSE * 3).as_secs());
}

/// Resumes the write of events 1 and 2 from a note.
async fn resume(calls: &TestCalls, note: Note) -> Result<Resumed<u64>, HandlerError> {
    let events = [node_event(1), event(2, "a", vec![])];
    event_table(calls).resume(&note.encode(), &events.iter().collect::<Vec<_>>()).await
}

#[tokio::test]
async fn misfit_of_begun_write_is_sent_without_its_value() {
    let calls = TestCalls::with_table(&[("node_id", "utf8")]);
    assert_eq!(misfits(&calls, &[&node_event(1)]).await.0, Ok(1));
    assert_eq!(resume(&calls, Note::Valid(9)).await, Ok(Resumed::Write(9)));
    let rows = calls.state().resumed.clone().unwrap();
    let values = rows.column_by_name("node_id").unwrap();
    assert_eq!((rows.num_rows(), values.null_count()), (2, 2));
}

#[tokio::test]
async fn write_of_other_rows_is_fenced() {
    let calls = TestCalls::with_table(&[("node_id", "uint64")]);
    assert_eq!(resume(&calls, Note::OtherRows(9)).await, Ok(Resumed::Fenced));
    assert_eq!(calls.state().fenced, [9]);
}

#[tokio::test]
async fn write_stays_begun_until_its_fence_succeeds() {
    let calls = TestCalls::with_table(&[("node_id", "uint64")]);
    calls.state().fence_refused = true;
    let error = resume(&calls, Note::OtherRows(9)).await.unwrap_err();
    assert!(error.to_string().contains("injected"), "{error}");
    assert!(calls.state().fenced.is_empty());
    calls.state().fence_refused = false;
    assert_eq!(resume(&calls, Note::OtherRows(9)).await, Ok(Resumed::Fenced));
    assert_eq!(calls.state().fenced, [9]);
}

#[tokio::test]
async fn write_of_a_dropped_table_is_not_fenced() {
    let calls = TestCalls::with_table(&[("node_id", "uint64")]);
    assert_eq!(resume(&calls, Note::OtherTable).await, Ok(Resumed::TableDropped));
    assert!(calls.state().fenced.is_empty());
}

#[tokio::test]
async fn damaged_note_is_an_error_with_the_remedy() {
    let calls = TestCalls::with_table(&[("node_id", "uint64")]);
    let error = resume(&calls, Note::Damaged).await.unwrap_err().to_string();
    assert!(error.contains("start the release that wrote the event spool"), "{error}");
    assert!(calls.state().fenced.is_empty());
}

#[tokio::test]
async fn lookup_without_events_sends_nothing() {
    let calls = TestCalls::default();
    assert_eq!(event_table(&calls).present(&[]).await, Ok(BTreeSet::new()));
}
