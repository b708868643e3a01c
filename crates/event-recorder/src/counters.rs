//! Counters of a recorder, which are metrics of the process as well.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::meters;

/// Counters of a recorder since it was created.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    recorded: AtomicU64,
    filtered: AtomicU64,
    closed: AtomicU64,
    spooled: AtomicU64,
    written: AtomicU64,
    retried: AtomicU64,
    set_aside: AtomicU64,
    dropped: AtomicU64,
}

/// Values of the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Events that were passed to the recorder.
    pub recorded: u64,
    /// Events of filtered types, and those that cannot be made rows.
    pub filtered: u64,
    /// Events that were refused because the recorder was closed.
    pub closed: u64,
    /// Events that the spool has taken.
    pub spooled: u64,
    /// Events that the handler has persisted.
    pub written: u64,
    /// Attempts of the handler that failed.
    pub retried: u64,
    /// Events that were set aside.
    pub set_aside: u64,
    /// Events that found no room, or were evicted.
    pub dropped: u64,
}

impl Counters {
    pub(crate) fn count_recorded(&self) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        meters::count_recorded();
    }

    pub(crate) fn count_filtered(&self) {
        self.filtered.fetch_add(1, Ordering::Relaxed);
        meters::count_filtered();
    }

    pub(crate) fn count_closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        meters::count_closed();
    }

    pub(crate) fn count_spooled(&self, events: u64) {
        self.spooled.fetch_add(events, Ordering::Relaxed);
        meters::count_spooled(events);
    }

    pub(crate) fn count_written(&self, events: u64) {
        self.written.fetch_add(events, Ordering::Relaxed);
        meters::count_written(events);
    }

    pub(crate) fn count_retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
        meters::count_retried();
    }

    pub(crate) fn count_set_aside(&self, events: u64) {
        self.set_aside.fetch_add(events, Ordering::Relaxed);
        meters::count_set_aside(events);
    }

    pub(crate) fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
        meters::count_dropped(events);
    }

    pub(crate) fn counts(&self) -> EventCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EventCounts {
            recorded: value(&self.recorded),
            filtered: value(&self.filtered),
            closed: value(&self.closed),
            spooled: value(&self.spooled),
            written: value(&self.written),
            retried: value(&self.retried),
            set_aside: value(&self.set_aside),
            dropped: value(&self.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
    use parking_lot::Mutex;

    use super::*;

    /// Values of the counters of a process.
    #[derive(Debug, Default)]
    struct CounterValues(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

    impl metrics::Recorder for CounterValues {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let mut values = self.0.lock();
            Counter::from_arc(Arc::clone(values.entry(key.name().to_owned()).or_default()))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn counters_equal_their_metrics() {
        let values = CounterValues::default();
        let counters = Counters::default();
        metrics::with_local_recorder(&values, || {
            counters.count_recorded();
            counters.count_filtered();
            counters.count_closed();
            counters.count_spooled(2);
            counters.count_written(3);
            counters.count_retried();
            counters.count_set_aside(4);
            counters.count_dropped(5);
        });
        let counts = counters.counts();
        let values = values.0.into_inner();
        let values = values.iter().map(|(name, value)| {
            let name = name.strip_prefix("tidewater_").and_then(|name| name.strip_suffix("_total"));
            (name.unwrap(), value.load(Ordering::Relaxed))
        });
        assert_eq!(
            values.collect::<Vec<_>>(),
            [
                ("event_batches_retried", counts.retried),
                ("events_closed", counts.closed),
                ("events_dropped", counts.dropped),
                ("events_filtered", counts.filtered),
                ("events_recorded", counts.recorded),
                ("events_set_aside", counts.set_aside),
                ("events_spooled", counts.spooled),
                ("events_written", counts.written),
            ]
        );
        assert_eq!(
            (counts.spooled, counts.written, counts.set_aside, counts.dropped),
            (2, 3, 4, 5)
        );
    }
}
