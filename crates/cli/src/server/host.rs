//! Listener and the services of every process: health, reflection, metrics, node admin.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::clock::SystemClock;
use tidewater_common::problems::ProcessProblems;
use tidewater_events::EventRecorderRef;
use tidewater_proto::v1::node_admin_server::NodeAdminServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::MAX_MESSAGE_BYTES;
use super::connections::accept::connections;
use super::connections::calls::CountCalls;
use super::connections::descriptors;
use super::connections::limits::ConnectionLimits;
use super::connections::table::ConnectionTable;
use super::listen::{Listen, advertised, bind, check_exposure};
use super::logs::{LogFilter, LogOptions};
use super::metrics::MetricsPage;
use super::node_admin::NodeAdminService;
use super::switchboard::Switchboard;
use crate::exit::Failure;

/// Maximum calls in flight on one connection. Raft streams and watches are long-lived and few.
const CALLS_PER_CONNECTION: usize = 4_096;

/// HTTP/2 flow control windows in bytes: a batch of rows is in flight without waiting for the peer.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Seconds between two counts of the open file descriptors.
const DESCRIPTOR_CHECKS: u64 = 5;

/// Time for open calls to complete when the process stops.
const DRAIN: Duration = Duration::from_secs(5);

/// A bound port and the task that serves it.
pub(crate) struct Host {
    bound: SocketAddr,
    advertised: String,
    switchboard: Switchboard,
    health: HealthReporter,
    problems: ProcessProblems,
    calls: Arc<OnceLock<RecordedCalls>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    upkeep: JoinHandle<()>,
}

impl Host {
    /// Binds the port and serves it; [`install`](Self::install) adds the services of roles.
    pub(crate) async fn start(listen: &Listen, logs: &LogOptions) -> Result<Self, Failure> {
        check_exposure(listen.listen, listen.exposure.insecure)?;
        let listener = bind(listen.listen)?;
        let listener = TcpListener::from_std(listener)
            .map_err(|error| Failure::other(format!("cannot listen: {error}")))?;
        let bound = listener
            .local_addr()
            .map_err(|error| Failure::other(format!("cannot listen: {error}")))?;
        let advertised = advertised(bound, listen.exposure.advertise.as_deref())?;
        let remote = logs.remote_log_filter;
        let calls = Arc::<OnceLock<RecordedCalls>>::default();
        let node_admin = NodeAdminService {
            logs: LogFilter::start(logs)?,
            remote,
            address: advertised.clone(),
            calls: calls.clone(),
        };
        let metrics = MetricsPage::install()?;
        let switchboard = Switchboard::default();
        let (health, routes) = common_routes(&switchboard, node_admin, metrics.clone())?;
        // "" is the process as a whole.
        health.set_service_status("", ServingStatus::NotServing).await;
        let stop = CancellationToken::new();
        let descriptors = descriptors::raise_limit();
        let limits = connection_limits(descriptors, listen.exposure.max_connections);
        let table = ConnectionTable::new(limits);
        let incoming = connections(listener, table.clone());
        let serving = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
            .layer(CountCalls)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let task = tokio::spawn(serving);
        let problems = ProcessProblems::default();
        let upkeep = tokio::spawn(run_upkeep(metrics, table, descriptors, problems.clone()));
        Ok(Self { bound, advertised, switchboard, health, problems, calls, stop, task, upkeep })
    }

    /// Returns the bound address.
    pub(crate) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Returns the advertised address, HOST:PORT.
    pub(crate) fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Returns the problems of the process, which its nodes report.
    pub(crate) fn problems(&self) -> ProcessProblems {
        self.problems.clone()
    }

    /// Records the administrative calls of the process from now on.
    pub(crate) fn record_calls(&self, recorder: &EventRecorderRef) {
        self.calls.get_or_init(|| RecordedCalls::new(Arc::clone(recorder), Arc::new(SystemClock)));
    }

    /// Installs the services of the roles started so far; [`install`](Self::install) follows.
    pub(crate) fn install_first(&self, routes: Routes) {
        self.switchboard.install_first(routes);
    }

    /// Installs the services of all roles.
    pub(crate) fn install(&self, routes: Routes) {
        self.switchboard.install(routes);
    }

    /// Reports that the process serves: to health checks, and with a line on stdout to the process
    /// that started it.
    pub(crate) async fn report_ready(&self, role: &str, id: &str) -> Result<(), Failure> {
        self.health.set_service_status("", ServingStatus::Serving).await;
        tracing::info!(role, id, listen = %self.bound, advertise = self.advertised, "serving");
        crate::output::line(&format!("ready role={role} id={id} address={}", self.advertised))
    }

    /// Reports to health checks that the process is about to stop.
    pub(crate) async fn report_draining(&self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
    }

    /// Resolves when the listener fails; otherwise stays pending.
    pub(crate) async fn failed(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Err(error)) => Failure::other(format!("the listener failed: {error}")),
            Ok(Ok(())) => Failure::other("the listener exited unexpectedly"),
            Err(error) => Failure::other(format!("the listener task failed: {error}")),
        }
    }

    /// Closes the port; open calls have a few seconds to complete.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.upkeep.abort();
        // A completed task must not be polled again, and `failed` may have taken its result.
        if self.task.is_finished() {
            return;
        }
        if tokio::time::timeout(DRAIN, &mut self.task).await.is_err() {
            tracing::info!("open calls aborted");
            self.task.abort();
        }
    }
}

/// `limit`: the limit of file descriptors.
async fn run_upkeep(
    metrics: MetricsPage,
    table: ConnectionTable,
    limit: u64,
    problems: ProcessProblems,
) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut second: u64 = 0;
    loop {
        every.tick().await;
        metrics.upkeep();
        problems.set("connections", table.problem(Instant::now()));
        if second.is_multiple_of(DESCRIPTOR_CHECKS) {
            let open = tokio::task::spawn_blocking(move || descriptors::open(limit)).await;
            problems
                .set("descriptors", open.ok().and_then(|open| descriptors::shortage(open, limit)));
        }
        second = second.wrapping_add(1);
    }
}

/// Returns the limits of connections. `descriptors`: the limit of file descriptors.
fn connection_limits(descriptors: u64, max_connections: Option<u32>) -> ConnectionLimits {
    let limits = match max_connections {
        Some(total) => ConnectionLimits::of_total(usize::try_from(total).unwrap_or(usize::MAX)),
        None => ConnectionLimits::for_descriptors(descriptors),
    };
    tracing::info!(descriptors, connections = limits.total, per_peer = limits.per_peer, "limits");
    limits
}

fn common_routes(
    switchboard: &Switchboard,
    node_admin: NodeAdminService,
    metrics: MetricsPage,
) -> Result<(HealthReporter, Routes), Failure> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tidewater_proto::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |error: tonic_reflection::server::Error| {
        Failure::other(format!("cannot serve reflection: {error}"))
    };
    let node_admin = NodeAdminServer::new(node_admin)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let mut routes = Routes::builder();
    routes
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(failed)?)
        // Older versions of grpcurl support only this version.
        .add_service(reflection().build_v1alpha().map_err(failed)?)
        .add_service(node_admin);
    let router = routes
        .routes()
        .into_axum_router()
        .route_service("/metrics", metrics)
        .fallback_service(switchboard.clone());
    Ok((health, Routes::from(router)))
}
