//! Figures of a measurement, as text and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::json;
use tidewater_cluster_tests::Result;

use crate::options::Options;

/// A measured value.
#[derive(Debug, Clone)]
struct Figure {
    scenario: String,
    name: String,
    value: f64,
    unit: &'static str,
}

/// Figures in the order of their measurement, and the scenarios that failed.
#[derive(Debug)]
pub(crate) struct Report {
    sizes: Options,
    figures: Vec<Figure>,
    failures: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn new(sizes: &Options) -> Self {
        Self { sizes: sizes.clone(), figures: Vec::new(), failures: Vec::new() }
    }

    /// Adds a value and prints it, so that an interrupted run leaves its figures.
    pub(crate) fn add(&mut self, scenario: &str, name: &str, value: f64, unit: &'static str) {
        let figure = Figure { scenario: scenario.to_owned(), name: name.to_owned(), value, unit };
        eprintln!("{figure}");
        self.figures.push(figure);
    }

    /// Adds a time in milliseconds.
    pub(crate) fn add_time(&mut self, scenario: &str, name: &str, time: Duration) {
        self.add(scenario, name, time.as_secs_f64() * 1e3, "ms");
    }

    /// Records the error of a scenario.
    pub(crate) fn check(&mut self, scenario: &str, result: Result<()>) {
        if let Err(error) = result {
            eprintln!("{scenario} failed: {error}");
            self.failures.push((scenario.to_owned(), error.to_string()));
        }
    }

    /// Returns the figures as one JSON object.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let sizes = &self.sizes;
        let figures = self.figures.iter().map(|figure| {
            json!({
                "scenario": figure.scenario,
                "figure": figure.name,
                "value": figure.value,
                "unit": figure.unit,
            })
        });
        let failures = self
            .failures
            .iter()
            .map(|(scenario, error)| json!({ "scenario": scenario, "error": error }));
        json!({
            "sizes": {
                "nodes": sizes.nodes,
                "tables": sizes.tables,
                "routes": sizes.routes,
                "watchers": sizes.watchers,
                "writers": sizes.writers,
                "clients": sizes.clients,
                "hooks": sizes.hooks,
                "rack": sizes.rack,
            },
            "figures": figures.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, name, value, unit } = self;
        write!(f, "{scenario:<18} {name:<52} {value:>12.1} {unit}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figure in &self.figures {
            writeln!(f, "{figure}")?;
        }
        for (scenario, error) in &self.failures {
            writeln!(f, "{scenario:<18} FAILED: {error}")?;
        }
        Ok(())
    }
}
