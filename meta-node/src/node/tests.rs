//! Meta nodes in one process, over loopback gRPC, with data nodes that only answer.

mod bootstrap;
mod cluster;
mod compactors;
mod data_nodes;
mod events;
mod exports;
mod hanging;
mod holds;
mod levels;
mod life;
mod members;
mod procedures;
mod refusals;
mod table_cluster;
mod timestamps;
