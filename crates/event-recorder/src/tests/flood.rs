//! More events than the queue or the spool has room for.

use super::*;

// V4.
#[tokio::test]
async fn flood_stays_within_the_limits() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Hang);
    let options = EventRecorderOptions {
        queue_events: 100,
        max_event_bytes: 10_000,
        spool_bytes: 40_000,
        handle_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_millis(1_500),
        ..options()
    };
    // Summaries have some room of their own.
    let limit = options.spool_bytes + 65_536;
    let recorder = open_with(directory.path(), &handler, options.clone());
    let payload = format!("\"{}\"", "x".repeat(1_000));
    let event =
        |priority| TestEvent { payload: payload.clone(), priority, ..TestEvent::new("flood") };
    let mut outcomes = Vec::new();
    for n in 0..3_000 {
        let priority = if n % 3 == 0 { Priority::Normal } else { Priority::Low };
        outcomes.push(recorder.record(&event(priority)));
        assert!(recorder.spooled_bytes() <= limit);
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut dropped = 0;
    let mut spooled = 0;
    for outcome in outcomes {
        match outcome.await {
            RecordOutcome::Dropped => dropped += 1,
            RecordOutcome::Spooled => spooled += 1,
            other => panic!("{other:?}"),
        }
    }
    recorder.close().await;
    let counts = recorder.counts();
    assert_eq!((counts.recorded, counts.spooled), (3_000, spooled));
    assert_eq!(spooled + dropped, counts.recorded);
    assert!(dropped > 1_000, "{dropped}");
    // Events that were spooled and evicted later are counted as well.
    assert!(counts.dropped >= dropped, "{counts:?}");
    drop(recorder);

    let summaries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&summaries);
    let handler = TestHandler::new(move |batch| {
        let dropped =
            batch.events().iter().filter(|event| event.event_type == intake::DROPPED_TYPE);
        seen.lock().extend(dropped.map(|event| event.payload.clone()));
        Reaction::Persist
    });
    let recorder = reopen(directory.path(), &handler, options).await;
    recorder.close().await;
    let reported: u64 = summaries
        .lock()
        .iter()
        .map(|payload| serde_json::from_str::<serde_json::Value>(payload).unwrap())
        .map(|payload| payload["dropped"].as_u64().unwrap())
        .sum();
    assert_eq!(reported, counts.dropped);
    assert_eq!(recorder.spooled_events(), 0);
}

// V3.
#[tokio::test]
async fn hanging_table_leaves_room_for_other_tables() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|batch| match batch.table() {
        "events" => Reaction::Persist,
        _ => Reaction::Hang,
    });
    let options = EventRecorderOptions {
        max_event_bytes: 10_000,
        spool_bytes: 40_000,
        handle_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_millis(500),
        ..options()
    };
    let recorder = open_with(directory.path(), &handler, options);
    let payload = format!("\"{}\"", "x".repeat(1_000));
    let hanging = TestEvent { table: "audit".to_owned(), payload, ..TestEvent::new("flood") };
    // The handler has the summaries of the dropped events as well.
    let numbers = || {
        let is_number = |payload: &String| payload.parse::<usize>().is_ok();
        handler.persisted().into_iter().filter(is_number).collect::<Vec<_>>()
    };
    for round in 0..4 {
        while recorder.record(&hanging).await == RecordOutcome::Spooled {}
        record_all(&recorder, round * 25..(round + 1) * 25).await;
    }
    until(|| numbers().len() == 100).await;
    assert_eq!(numbers(), texts(0..100));
    recorder.close().await;
    // Half of the spool is the share of the table that hangs: 18 events of 1,106 bytes.
    assert!(recorder.spooled_events() >= 18, "{}", recorder.spooled_events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_does_not_wait_for_the_handler() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Hang);
    let recorder = open(directory.path(), &handler);
    let mut times: Vec<Duration> = (0..5_000)
        .map(|number| {
            let event = TestEvent::numbered(number);
            let begun = Instant::now();
            let _receipt = recorder.record(&event);
            begun.elapsed()
        })
        .collect();
    times.sort();
    let median = times[times.len() / 2];
    let p99 = times[times.len() * 99 / 100];
    eprintln!("5,000 events were recorded within {median:?} (median) and {p99:?} (99 %) each");
    // 20 us for 99 % when optimized (V2). This build is not, and its thread loses the processor to other tests.
    assert!(median < Duration::from_millis(1), "{median:?}");
}
