//! Tables of all metrics of the workspace, and their description to the exporter.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use tidewater_common::metric::{Metric, MetricKind, MetricUnit};

/// Metrics of one crate.
#[cfg_attr(not(test), expect(dead_code, reason = "tests read the title and the source"))]
pub(super) struct MetricTable {
    /// Headline in `docs/metrics.md`.
    pub(super) title: &'static str,
    /// Source file that has the table and emits its metrics, from the root of the workspace.
    pub(super) source: &'static str,
    pub(super) metrics: &'static [Metric],
}

/// All tables, in the order of `docs/metrics.md`.
pub(super) const TABLES: [MetricTable; 8] = [
    MetricTable {
        title: "Data nodes",
        source: "data-node/src/meters.rs",
        metrics: tidewater_data_node::METRICS,
    },
    MetricTable {
        title: "Regions: data nodes and compactors",
        source: "crates/region-engine/src/meters.rs",
        metrics: tidewater_region_engine::METRICS,
    },
    MetricTable {
        title: "Hooks: data nodes and compactors",
        source: "crates/hook-kinds/src/meters.rs",
        metrics: tidewater_hook_kinds::METRICS,
    },
    MetricTable {
        title: "Meta nodes",
        source: "meta-node/src/meters.rs",
        metrics: tidewater_meta_node::METRICS,
    },
    MetricTable {
        title: "Raft log: meta nodes and data nodes",
        source: "crates/raft-store/src/meters.rs",
        metrics: tidewater_raft_store::METRICS,
    },
    MetricTable {
        title: "Compactors",
        source: "compactor-node/src/meters.rs",
        metrics: tidewater_compactor_node::METRICS,
    },
    MetricTable {
        title: "Event recorder: every process that records events",
        source: "crates/event-recorder/src/meters.rs",
        metrics: tidewater_event_recorder::METRICS,
    },
    MetricTable {
        title: "Connections, events without a spool: every process",
        source: "crates/cli/src/server/meters.rs",
        metrics: crate::server::meters::METRICS,
    },
];

/// Describes all metrics to the current recorder.
pub(super) fn describe_all() {
    for metric in TABLES.iter().flat_map(|table| table.metrics) {
        let unit = exporter_unit(metric.unit);
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, unit, metric.description),
            MetricKind::Gauge => describe_gauge!(metric.name, unit, metric.description),
            MetricKind::Histogram => describe_histogram!(metric.name, unit, metric.description),
        }
    }
}

fn exporter_unit(unit: MetricUnit) -> Unit {
    match unit {
        MetricUnit::Bytes => Unit::Bytes,
        MetricUnit::Seconds => Unit::Seconds,
        MetricUnit::Count | MetricUnit::Flag => Unit::Count,
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Key, Level, Metadata, Recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// Emits a metric as its meters do.
    fn emit(recorder: &dyn Recorder, metric: &Metric) {
        let key = Key::from_static_name(metric.name);
        let metadata = Metadata::new(module_path!(), Level::INFO, None);
        match metric.kind {
            MetricKind::Counter => recorder.register_counter(&key, &metadata).increment(1),
            MetricKind::Gauge => recorder.register_gauge(&key, &metadata).set(1.0),
            MetricKind::Histogram => recorder.register_histogram(&key, &metadata).record(1.0),
        }
    }

    #[test]
    fn every_metric_has_help_line() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, describe_all);
        for metric in TABLES.iter().flat_map(|table| table.metrics) {
            emit(&recorder, metric);
        }
        let page = recorder.handle().render();
        for metric in TABLES.iter().flat_map(|table| table.metrics) {
            let help = format!("# HELP {} {}\n", metric.name, metric.description);
            assert!(page.contains(&help), "{help} is not in:\n{page}");
        }
    }
}
