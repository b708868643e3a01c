//! Metrics of the event recorder. Names are stable; counters start with the process.

use metrics::{counter, gauge};
use tidewater_common::metric::{Metric, MetricUnit};

use crate::spool::EventTotal;

/// Metrics of the event recorder, which all processes that record events have.
pub const METRICS: &[Metric] = &[
    Metric::counter("tidewater_events_recorded_total", MetricUnit::Count)
        .describe("Events that were passed to the recorder."),
    Metric::counter("tidewater_events_filtered_total", MetricUnit::Count)
        .describe("Events of filtered types, and events that cannot be made rows."),
    Metric::counter("tidewater_events_closed_total", MetricUnit::Count)
        .describe("Events that were refused because the recorder was closed."),
    Metric::counter("tidewater_events_spooled_total", MetricUnit::Count)
        .describe("Events that were written to the spool."),
    Metric::counter("tidewater_events_written_total", MetricUnit::Count)
        .describe("Events of the spool that were written to their tables."),
    Metric::counter("tidewater_events_set_aside_total", MetricUnit::Count)
        .describe("Events of the spool that cannot be written and were set aside."),
    Metric::counter("tidewater_events_dropped_total", MetricUnit::Count).describe(
        "Events that found no room in the queue or the spool, or were evicted from them.",
    ),
    Metric::counter("tidewater_event_batches_retried_total", MetricUnit::Count)
        .describe("Attempts to write a batch of events that failed and are retried."),
    Metric::gauge("tidewater_event_queue_events", MetricUnit::Count)
        .describe("Events in memory that are not in the spool yet."),
    Metric::gauge("tidewater_event_spool_events", MetricUnit::Count)
        .describe("Events in the spool."),
    Metric::gauge("tidewater_event_spool_bytes", MetricUnit::Bytes)
        .describe("Size of the events in the spool."),
];

/// Counts an event that was passed to the recorder.
pub(crate) fn count_recorded() {
    counter!("tidewater_events_recorded_total").increment(1);
}

/// Counts an event that is not recorded.
pub(crate) fn count_filtered() {
    counter!("tidewater_events_filtered_total").increment(1);
}

/// Counts an event of a closed recorder.
pub(crate) fn count_closed() {
    counter!("tidewater_events_closed_total").increment(1);
}

/// Counts events that the spool has taken.
pub(crate) fn count_spooled(events: u64) {
    counter!("tidewater_events_spooled_total").increment(events);
}

/// Counts events that the handler has persisted.
pub(crate) fn count_written(events: u64) {
    counter!("tidewater_events_written_total").increment(events);
}

/// Counts events that were set aside.
pub(crate) fn count_set_aside(events: u64) {
    counter!("tidewater_events_set_aside_total").increment(events);
}

/// Counts events that found no room, or were evicted.
pub(crate) fn count_dropped(events: u64) {
    counter!("tidewater_events_dropped_total").increment(events);
}

/// Counts an attempt of the handler that failed.
pub(crate) fn count_retried() {
    counter!("tidewater_event_batches_retried_total").increment(1);
}

/// Sets the number of events in the queue.
pub(crate) fn set_queued(events: usize) {
    gauge!("tidewater_event_queue_events").set(events as f64);
}

/// Sets the size of the spool.
pub(crate) fn set_spool(total: EventTotal) {
    gauge!("tidewater_event_spool_events").set(total.events as f64);
    gauge!("tidewater_event_spool_bytes").set(total.bytes as f64);
}
