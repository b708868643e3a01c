//! Wire and storage formats of Tidewater: the Rust generated from this crate's `.proto` files.
//!
//! The crate contains only generated code. Conversions to and from domain types are defined with
//! those types. All `bytes` fields are [`bytes::Bytes`](https://docs.rs/bytes), so that rows
//! pass from the network into the log without a copy.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// Messages, clients and servers of package `tidewater.v1`.
pub mod v1 {
    tonic::include_proto!("tidewater.v1");
}

/// The package namespace `tidewater.compaction`.
pub mod compaction {
    /// Messages, clients and servers of package `tidewater.compaction.v1`.
    pub mod v1 {
        tonic::include_proto!("tidewater.compaction.v1");
    }
}

/// The standard gRPC error model (package `google.rpc`).
pub mod google_rpc {
    tonic::include_proto!("google.rpc");
}

/// The encoded `FileDescriptorSet` of all files, for the reflection service.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
