//! Whole replicas in one process: real log store, real network over loopback, local object store.

#[path = "replicas/cluster.rs"]
mod cluster;
#[path = "replicas/membership.rs"]
mod membership;
#[path = "replicas/outage.rs"]
mod outage;
#[path = "replicas/single.rs"]
mod single;
#[path = "replicas/three.rs"]
mod three;
