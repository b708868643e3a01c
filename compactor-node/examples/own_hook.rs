//! A compactor with its own hook kind, which prints a line for each call.
use std::{error::Error, sync::Arc};

use serde_json::Value;
use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_compactor_node::{CompactorNode, CompactorOptions};
use tidewater_region_engine::{RegionHook, RegionHookRef, RegionSpec, hooks::*};
use tokio::{net::TcpListener, signal::unix};

#[derive(Debug)]
struct Print(String);

#[async_trait::async_trait]
impl RegionHook for Print {
    async fn on_sst_files_written(
        &self,
        region: RegionId,
        _: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        println!("{} sst_files_written region={region} files={}", self.0, files.len());
        Ok(())
    }
    async fn on_manifest_updated(
        &self,
        region: RegionId,
        _: &RegionMetaActionList,
        version: ManifestVersion,
        _: ManifestKind,
    ) -> Result<(), HookError> {
        println!("{} manifest_updated region={region} version={version}", self.0);
        Ok(())
    }
}

impl HookKind for Print {
    fn kind(&self) -> &'static str {
        "print"
    }
    fn check(&self, config: &Value) -> Result<(), String> {
        config.as_object().map(drop).ok_or_else(|| "the configuration is not an object".to_owned())
    }
    fn make(&self, spec: &HookSpec, _: HookHome) -> Result<RegionHookRef, String> {
        Ok(Arc::new(Self(spec.name.clone())))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [listen, meta, store]: [String; 3] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "LISTEN META STORE")?;
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let mut options = CompactorOptions::new(address.to_string(), vec![meta], store);
    options.hook_kinds.register(Arc::new(Print(String::new())))?;
    let node = CompactorNode::start(options).await?;
    println!("ready {} {address}", node.node_id());
    Ok(node.serve(listener, async move { _ = stop.recv().await }).await?)
}
