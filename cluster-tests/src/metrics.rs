//! Metrics of a node from its `/metrics` page.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::{Result, http};

/// Metrics of a node at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Values by name with labels in the Prometheus text format.
    samples: BTreeMap<String, f64>,
    /// Names with a HELP line.
    described: BTreeSet<String>,
}

impl Metrics {
    /// Fetches the metrics of a node.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn fetch(node: SocketAddr) -> Result<Self> {
        Ok(Self::parse(&http::request(node, "GET", "/metrics").await?))
    }

    fn parse(text: &str) -> Self {
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let described = |line: &str| {
            let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
            (!help.is_empty()).then(|| name.to_owned())
        };
        Self {
            samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(value).collect(),
            described: text.lines().filter_map(described).collect(),
        }
    }

    /// Sums a metric over all labels; 0 if the metric does not exist.
    pub fn sum(&self, name: &str) -> u64 {
        let named = |key: &str| {
            key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        };
        self.samples.iter().filter(|(key, _)| named(key)).map(|(_, value)| *value as u64).sum()
    }

    /// Value of a metric with one label; 0 if the metric does not exist.
    pub fn labelled(&self, name: &str, label: &str, value: &str) -> u64 {
        let key = format!("{name}{{{label}=\"{value}\"}}");
        self.samples.get(&key).map_or(0, |value| *value as u64)
    }

    /// Mean of what a histogram without labels has recorded since other metrics of the same process; `None` if
    /// nothing was recorded.
    pub fn mean_since(&self, before: &Self, name: &str) -> Option<f64> {
        let sample = |metrics: &Self, part: &str| {
            metrics.samples.get(&format!("{name}_{part}")).copied().unwrap_or_default()
        };
        let recorded = |part: &str| sample(self, part) - sample(before, part);
        let count = recorded("count");
        (count > 0.0).then(|| recorded("sum") / count)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Returns true if there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns the samples of Tidewater's metrics that have no HELP line.
    pub fn undescribed(&self) -> Vec<&str> {
        let is_described = |sample: &str| {
            let name = sample.split('{').next().unwrap_or_default();
            // The sum and the count of a summary share the HELP line of its name.
            let base = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
            [Some(name), base].into_iter().flatten().any(|name| self.described.contains(name))
        };
        let samples = self.samples.keys().map(String::as_str);
        samples.filter(|name| name.starts_with("tidewater_") && !is_described(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name_and_label() {
        let text =
            "# TYPE jobs counter\njobs{outcome=\"a\"} 3\njobs{outcome=\"b\"} 4\njobs_all 9\n\n";
        let metrics = Metrics::parse(text);
        assert_eq!((metrics.sum("jobs"), metrics.sum("jobs_all"), metrics.sum("none")), (7, 9, 0));
        assert_eq!(metrics.labelled("jobs", "outcome", "b"), 4);
        let summary = Metrics::parse("round_sum 3.5\nround_count 7\nidle_sum 0\nidle_count 0\n");
        let before = Metrics::default();
        let mean = |before: &Metrics, name: &str| summary.mean_since(before, name);
        assert_eq!((mean(&before, "round"), mean(&before, "idle")), (Some(0.5), None));
        let before = Metrics::parse("round_sum 0.5\nround_count 6\n");
        assert_eq!((mean(&before, "round"), mean(&summary, "round")), (Some(3.0), None));
    }

    #[test]
    fn samples_without_help_are_found() {
        let text = "# HELP tidewater_a Jobs.\n# TYPE tidewater_a summary\n\
            tidewater_a{quantile=\"0.5\"} 1\ntidewater_a_sum 3\ntidewater_a_count 1\n\
            # TYPE tidewater_b gauge\ntidewater_b{group=\"1\"} 2\nother 1\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.len(), 5);
        assert_eq!(metrics.undescribed(), ["tidewater_b{group=\"1\"}"]);
    }
}
