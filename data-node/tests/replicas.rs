//! Tests of whole replicas in one process: real log store, real network over loopback, local object
//! store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "replicas/areas.rs"]
mod areas;
#[path = "replicas/cluster.rs"]
mod cluster;
#[path = "replicas/compaction.rs"]
mod compaction;
#[path = "replicas/fake_compactor.rs"]
mod fake_compactor;
#[path = "replicas/membership.rs"]
mod membership;
#[path = "replicas/merge.rs"]
mod merge;
#[path = "replicas/moves.rs"]
mod moves;
#[path = "replicas/outage.rs"]
mod outage;
#[path = "replicas/remote.rs"]
mod remote;
#[path = "replicas/remote_cancelled.rs"]
mod remote_cancelled;
#[path = "replicas/remote_cluster.rs"]
mod remote_cluster;
#[path = "replicas/remote_fails.rs"]
mod remote_fails;
#[path = "replicas/remote_slow.rs"]
mod remote_slow;
#[path = "replicas/remote_too_large.rs"]
mod remote_too_large;
#[path = "replicas/remote_waits.rs"]
mod remote_waits;
#[path = "replicas/single.rs"]
mod single;
#[path = "replicas/split.rs"]
mod split;
#[path = "replicas/three.rs"]
mod three;
