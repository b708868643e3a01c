//! Nodes whose release cannot run at the feature level of their cluster: they exit with a remedy.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;
use rocksdb::{DB, Options};
use tidewater_cluster_tests::cluster::ClusterPlan;
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{MetaHeader, Reason};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;

use crate::commands::check;

/// Limit for a refused node to exit.
const EXIT_WITHIN: Duration = Duration::from_secs(60);
/// Exit status of a node that conflicts with its cluster.
const CONFLICT: i32 = 4;
/// Exit status of a node that cannot continue.
const FAILED: i32 = 1;

/// A meta leader of a cluster at a level that no release of today supports: it refuses every call.
#[derive(Debug, Clone)]
struct LaterCluster(Refusal);

impl LaterCluster {
    fn new() -> Self {
        let beyond = FeatureLevel::HIGHEST.next();
        let text =
            Release::own().check(beyond).map_or_else(|error| error.to_string(), |()| String::new());
        Self(Refusal::new(Reason::ReleaseUnsupported, text))
    }
}

impl NamedService for LaterCluster {
    const NAME: &'static str = "tidewater.v1.Meta";
}

impl Service<http::Request<Body>> for LaterCluster {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(Status::from(self.0.clone()).into_http()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_exit_when_their_release_is_refused() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 1).prepare().await?;
    let at: SocketAddr = cluster.meta[0].spec.listen;
    let serving = tokio::spawn(Server::builder().add_service(LaterCluster::new()).serve(at));
    for node in [&mut cluster.data[0], &mut cluster.compactors[0]] {
        node.spawn()?;
        expect_exit(node, CONFLICT, &refusal()).await?;
    }
    serving.abort();
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_exit_when_their_heartbeats_are_refused() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 1).prepare().await?;
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    let at: SocketAddr = cluster.meta[0].spec.listen;
    cluster.meta[0].terminate().await?;
    let serving = tokio::spawn(Server::builder().add_service(LaterCluster::new()).serve(at));
    expect_exit(&mut cluster.data[0], FAILED, &refusal()).await?;
    expect_exit(&mut cluster.compactors[0], FAILED, &refusal()).await?;
    serving.abort();
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_node_rejects_a_directory_above_its_level() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 0, 0).prepare().await?;
    cluster.start_all().await?;
    // The catalog is stored before a leader answers.
    cluster.run(&["table", "list"]).await?.ok()?;
    cluster.meta[0].terminate().await?;
    let later = FeatureLevel::HIGHEST.next();
    raise_stored_level(&cluster.meta[0], later)?;
    cluster.meta[0].spawn()?;
    let words = [format!("start a release that supports level {later}")];
    expect_exit(&mut cluster.meta[0], CONFLICT, &words).await?;
    cluster.finish().await
}

/// Words of the refusal of a node by [`LaterCluster`].
fn refusal() -> [String; 2] {
    let highest = FeatureLevel::HIGHEST;
    [
        format!("supports feature levels up to {highest}"),
        format!("the cluster is at level {}", highest.next()),
    ]
}

/// Writes the header row as a later release writes it.
fn raise_stored_level(node: &Node, level: FeatureLevel) -> Result<()> {
    let failed = |error: rocksdb::Error| HarnessError::violated(error.to_string());
    let directory = node.spec.data_dir.clone().unwrap_or_default().join("log");
    let families = DB::list_cf(&Options::default(), &directory).map_err(failed)?;
    let database = DB::open_cf(&Options::default(), &directory, families).map_err(failed)?;
    let state = database.cf_handle("state").expect("a column family of rows");
    let row = database.get_cf(state, "row/meta/header").map_err(failed)?.expect("a header");
    // Codec and checksum precede the payload.
    let stored = MetaHeader::decode(&row[5..]).expect("a header");
    let payload = MetaHeader { feature_level: level.get(), ..stored }.encode_to_vec();
    let row = [&[2], &crc32c::crc32c(&payload).to_be_bytes()[..], &payload].concat();
    database.put_cf(state, "row/meta/header", row).map_err(failed)
}

async fn expect_exit(node: &mut Node, status: i32, words: &[String]) -> Result<()> {
    let exit = node.wait_for_exit(EXIT_WITHIN).await?;
    let log = node.log().since_start()?;
    let is_explained = words.iter().all(|word| log.contains(word));
    check(
        &format!("{} exits with its reason ({exit}): {log}", node.spec.name),
        exit.code() == Some(status) && is_explained,
    )
}
