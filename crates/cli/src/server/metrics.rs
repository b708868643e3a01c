//! `/metrics` in the Prometheus text format, on the port of the node.

#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod source_tests;
mod tables;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, header};

use crate::exit::Failure;

/// HTTP service that returns all metrics of the process.
#[derive(Debug, Clone)]
pub(crate) struct MetricsPage {
    handle: PrometheusHandle,
}

impl MetricsPage {
    /// Installs the metrics recorder and describes all metrics to it. Must be called once per process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let handle = PrometheusBuilder::new()
            .install_recorder()
            .map_err(|error| Failure::other(format!("cannot collect metrics: {error}")))?;
        tables::describe_all();
        Ok(Self { handle })
    }

    /// Bounds the memory of histograms. Must be called every few seconds.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl<B> Service<Request<B>> for MetricsPage {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(self.handle.render());
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        ready(Ok(response))
    }
}
