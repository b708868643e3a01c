//! What a node's `/metrics` says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{Result, http};

/// Metrics of a node at a moment, by name with labels, as Prometheus' text form has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Asks a node.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(node: SocketAddr) -> Result<Self> {
        Ok(Self::parse(&http::ask(node, "GET", "/metrics").await?))
    }

    fn parse(text: &str) -> Self {
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(value).collect())
    }

    /// The sum of a metric over all of its labels; 0 when there is none.
    pub fn sum(&self, name: &str) -> u64 {
        let named = |key: &str| {
            key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        };
        self.0.iter().filter(|(key, _)| named(key)).map(|(_, value)| *value as u64).sum()
    }

    /// A metric with one label.
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
