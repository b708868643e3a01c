//! Compiles the `.proto` files without `protoc` and writes the descriptor set for gRPC reflection.

use std::error::Error;
use std::path::PathBuf;

const FILES: &[&str] = &[
    "google/rpc/status.proto",
    "tidewater/compaction/v1/compaction.proto",
    "tidewater/v1/admin.proto",
    "tidewater/v1/barrier.proto",
    "tidewater/v1/catalog.proto",
    "tidewater/v1/command.proto",
    "tidewater/v1/data.proto",
    "tidewater/v1/error.proto",
    "tidewater/v1/event.proto",
    "tidewater/v1/export.proto",
    "tidewater/v1/group.proto",
    "tidewater/v1/group_log.proto",
    "tidewater/v1/hook.proto",
    "tidewater/v1/manifest.proto",
    "tidewater/v1/meta.proto",
    "tidewater/v1/problem.proto",
    "tidewater/v1/procedure.proto",
    "tidewater/v1/raft.proto",
    "tidewater/v1/refresh.proto",
    "tidewater/v1/schema.proto",
    "tidewater/v1/storage.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        protox::Compiler::new(["."])?
            .include_imports(true)
            .include_source_info(false)
            .open_files(FILES)?
            .encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
