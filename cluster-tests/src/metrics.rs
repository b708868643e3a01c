//! Metrics of a node from its `/metrics` page.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{Result, http};

/// Metrics of a node at one time, by name with labels in the Prometheus text format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

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
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(value).collect())
    }

    /// Sums a metric over all labels; 0 if the metric does not exist.
    pub fn sum(&self, name: &str) -> u64 {
        let named = |key: &str| {
            key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        };
        self.0.iter().filter(|(key, _)| named(key)).map(|(_, value)| *value as u64).sum()
    }

    /// Value of a metric with one label; 0 if the metric does not exist.
    pub fn labelled(&self, name: &str, label: &str, value: &str) -> u64 {
        let key = format!("{name}{{{label}=\"{value}\"}}");
        self.0.get(&key).map_or(0, |value| *value as u64)
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
    }
}
