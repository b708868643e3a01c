//! Events from the call to the handler, also over restarts.

use super::*;

#[tokio::test]
async fn recorded_events_are_persisted_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..250).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts(0..250));
    let counts = recorder.counts();
    assert_eq!((counts.recorded, counts.spooled, counts.written), (250, 250, 250));
    assert_eq!(recorder.record(&TestEvent::numbered(1)).await, RecordOutcome::Closed);
    recorder.close().await;
    let counts = recorder.counts();
    assert_eq!((counts.recorded, counts.closed, counts.dropped), (251, 1, 0));
}

#[tokio::test]
async fn closing_without_events_calls_no_handler() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Panic);
    let recorder = open(directory.path(), &handler);
    recorder.close().await;
    assert_eq!(handler.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn spooled_events_survive_a_dropped_recorder() {
    let directory = tempfile::tempdir().unwrap();
    let failing = TestHandler::new(|_| Reaction::Fail);
    let recorder = open(directory.path(), &failing);
    record_all(&recorder, 0..30).await;
    until(|| failing.calls.load(Ordering::Relaxed) > 5).await;
    assert!(recorder.counts().retried > 4);
    drop(recorder);

    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = reopen(directory.path(), &handler, options()).await;
    record_all(&recorder, 30..40).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts(0..40));
    assert_eq!(recorder.spooled_events(), 0);
}

#[tokio::test]
async fn invalid_and_filtered_events_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = open(directory.path(), &handler);
    let unfit = vec![(ExtraColumn::new("n", ValueType::Int64), Value::Text("1".to_owned()))];
    for event in [
        TestEvent::new("noise"),
        TestEvent::new("no type"),
        TestEvent { fails: true, ..TestEvent::new("a") },
        TestEvent { payload: "{".to_owned(), ..TestEvent::new("a") },
        TestEvent { extra: unfit, ..TestEvent::new("a") },
        TestEvent { payload: format!("\"{}\"", "x".repeat(10 << 20)), ..TestEvent::new("a") },
    ] {
        assert_eq!(recorder.record(&event).await, RecordOutcome::Filtered);
    }
    recorder.close().await;
    assert_eq!((recorder.counts().filtered, recorder.counts().spooled), (6, 0));
}

#[tokio::test]
async fn options_out_of_range_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let handler: Arc<dyn EventHandler> = TestHandler::new(|_| Reaction::Persist);
    let options = EventRecorderOptions { queue_events: 0, ..options() };
    let filter = TypeFilter::default();
    let env = RecorderEnv::default();
    let opened = EventRecorderImpl::open(directory.path(), handler, filter, options, env);
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::Option(_)), "{error}");
    assert!(error.to_string().contains("queue_events"), "{error}");
}

#[tokio::test]
async fn spool_of_another_recorder_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = open(directory.path(), &handler);
    let shared: Arc<dyn EventHandler> = handler.clone();
    let filter = TypeFilter::default();
    let env = RecorderEnv::default();
    let opened = EventRecorderImpl::open(directory.path(), shared, filter, options(), env);
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::Spool(SpoolError::InUse { .. })), "{error}");
    record_all(&recorder, 0..3).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts(0..3));
}
