//! Descriptions of metrics.
//!
//! A crate that emits metrics has them in its `meters.rs`: one function for each event, and the
//! table `METRICS` with one row for each metric. The command describes all rows to the exporter,
//! and `docs/metrics.md` is generated from them.

/// Row of a metric in the table of its crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name in the Prometheus format.
    pub name: &'static str,
    /// Kind of the metric.
    pub kind: MetricKind,
    /// Unit of the value.
    pub unit: MetricUnit,
    /// Names of the labels, in alphabetical order.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub description: &'static str,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases, from 0 at the start of the process.
    Counter,
    /// Last value.
    Gauge,
    /// Distribution, exported as a summary: quantiles, sum and count.
    Histogram,
}

impl MetricKind {
    /// Name of the kind, which is also the name of the macro that emits such a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricUnit {
    /// Number of the things that the description names.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// 1 for true, 0 for false.
    Flag,
}

impl MetricUnit {
    /// Name of the unit in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Flag => "1 or 0",
        }
    }
}

impl Metric {
    /// Creates the row of a counter; [`describe`](Self::describe) completes it.
    pub const fn counter(name: &'static str, unit: MetricUnit) -> Self {
        Self::new(name, MetricKind::Counter, unit)
    }

    /// Creates the row of a gauge; [`describe`](Self::describe) completes it.
    pub const fn gauge(name: &'static str, unit: MetricUnit) -> Self {
        Self::new(name, MetricKind::Gauge, unit)
    }

    /// Creates the row of a histogram; [`describe`](Self::describe) completes it.
    pub const fn histogram(name: &'static str, unit: MetricUnit) -> Self {
        Self::new(name, MetricKind::Histogram, unit)
    }

    const fn new(name: &'static str, kind: MetricKind, unit: MetricUnit) -> Self {
        Self { name, kind, unit, labels: &[], description: "" }
    }

    /// Sets the names of the labels, in alphabetical order.
    #[must_use]
    pub const fn labels(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    /// Sets the description, one sentence.
    #[must_use]
    pub const fn describe(self, description: &'static str) -> Self {
        Self { description, ..self }
    }
}
