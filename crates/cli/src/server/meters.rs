//! Metrics of a server process. Names are stable; counters start with the process.

use metrics::{counter, gauge};
use tidewater_common::metric::{Metric, MetricUnit};

use super::connections::limits::RefusedConnection;

/// Metrics of every server process.
pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge("tidewater_connections", MetricUnit::Count)
        .describe("Open connections of callers."),
    Metric::counter("tidewater_connections_refused_total", MetricUnit::Count)
        .labels(&["reason"])
        .describe("Connections that were closed at once: the process or the peer had too many."),
    Metric::counter("tidewater_events_unspooled_total", MetricUnit::Count)
        .describe("Events that were dropped while the event spool could not be opened."),
];

/// Sets the number of open connections.
pub(crate) fn set_connections(open: usize) {
    gauge!("tidewater_connections").set(open as f64);
}

/// Counts a connection above a limit.
pub(crate) fn record_refused_connection(refused: RefusedConnection) {
    let reason = match refused {
        RefusedConnection::Total => "total",
        RefusedConnection::Peer => "peer",
    };
    counter!("tidewater_connections_refused_total", "reason" => reason).increment(1);
}

/// Counts an event that was dropped because the event spool was not open.
pub(crate) fn record_unspooled_event() {
    counter!("tidewater_events_unspooled_total").increment(1);
}
