//! Handlers that fail, panic and hang.

use super::*;

#[tokio::test]
async fn event_that_cannot_be_written_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let position =
        |batch: &EventBatch| batch.events().iter().position(|event| event.payload == "13");
    let handler = TestHandler::new(move |batch| match position(batch) {
        Some(at) => Reaction::SetAside(at),
        None => Reaction::Persist,
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..30).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts((0..30).filter(|number| *number != 13)));
    assert_eq!((recorder.counts().written, recorder.counts().set_aside), (29, 1));
    let file = directory.path().join(set_aside::SET_ASIDE_FILE);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("it does not fit") && text.contains("\"payload\":13"), "{text}");
}

#[tokio::test]
async fn event_that_panics_the_handler_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|batch| {
        let has_poison = batch.events().iter().any(|event| event.payload == "13");
        if has_poison { Reaction::Panic } else { Reaction::Persist }
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..30).await;
    until(|| recorder.spooled_events() == 0).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts((0..30).filter(|number| *number != 13)));
    let counts = recorder.counts();
    assert_eq!((counts.written, counts.set_aside), (29, 1));
    // Four attempts at least for the event on its own.
    assert!(counts.retried >= 4, "{counts:?}");
}

#[tokio::test]
async fn hanging_table_holds_up_no_other_table() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|batch| match batch.table() {
        "events" => Reaction::Persist,
        _ => Reaction::Hang,
    });
    let options = EventRecorderOptions { close_timeout: Duration::from_millis(500), ..options() };
    let recorder = open_with(directory.path(), &handler, options);
    let hanging = TestEvent { table: "audit".to_owned(), ..TestEvent::numbered(1) };
    assert_eq!(recorder.record(&hanging).await, RecordOutcome::Spooled);
    record_all(&recorder, 0..300).await;
    until(|| handler.persisted().len() == 300).await;
    until(|| recorder.counts().retried > 0).await;
    until(|| recorder.failing_table().is_some_and(|failing| failing.table == "audit")).await;
    recorder.close().await;
    assert_eq!(recorder.spooled_events(), 1);
    let counts = recorder.counts();
    assert_eq!((counts.spooled, counts.written, counts.set_aside), (301, 300, 0));
}

#[tokio::test]
async fn batch_is_written_after_three_failures() {
    let directory = tempfile::tempdir().unwrap();
    let calls = AtomicUsize::new(0);
    let handler = TestHandler::new(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0..3 => Reaction::Fail,
        _ => Reaction::Persist,
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..5).await;
    until(|| recorder.counts().written == 5).await;
    assert_eq!(recorder.failing_table(), None);
    recorder.close().await;
    assert_eq!(handler.persisted(), texts(0..5));
    let expected =
        EventCounts { recorded: 5, spooled: 5, written: 5, retried: 3, ..EventCounts::default() };
    assert_eq!(recorder.counts(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_a_table_do_not_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let active = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&active);
    let greatest = Arc::clone(&most);
    let calls = AtomicUsize::new(0);
    let handler = TestHandler::new(move |_| {
        greatest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            // Blocks its thread beyond the timeout of the call.
            std::thread::sleep(Duration::from_millis(500));
        }
        now.fetch_sub(1, Ordering::SeqCst);
        Reaction::Persist
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..5).await;
    until(|| recorder.spooled_events() == 0).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    recorder.close().await;
}
