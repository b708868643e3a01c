//! A data node with its own source kind: the numbers below a limit.
use std::{collections::BTreeMap, error::Error, sync::Arc};

use arrow::array::{Int64Array, RecordBatch};
use serde_json::Value;
use tidewater_common::clock::SystemClock;
use tidewater_data_node::{DataNode, DataOptions};
use tidewater_raft_store::RaftService;
use tidewater_source_kinds::{self as sources, Listing, Source, SourceError, SourceTable, Split};
use tokio::{net::TcpListener, signal::unix};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

struct Numbers(i64, SourceTable);
struct Kind;

#[async_trait::async_trait]
impl Source for Numbers {
    async fn list(&self) -> Result<Listing, SourceError> {
        let split = Split { name: "numbers".to_owned(), pin: BTreeMap::new(), bytes: 0 };
        Ok(Listing { snapshot: format!("{} numbers", self.0), splits: vec![split] })
    }
    async fn read(&self, _: &Split, rows: sources::RowSender) -> Result<(), SourceError> {
        let numbers = Arc::new(Int64Array::from_iter_values(0..self.0));
        let batch = RecordBatch::try_new(self.1.schema.arrow(), vec![numbers]);
        _ = rows.send(batch.map_err(|error| SourceError::Mismatch(error.to_string()))?).await;
        Ok(())
    }
}

#[async_trait::async_trait]
impl sources::SourceKind for Kind {
    fn kind(&self) -> &'static str {
        "numbers"
    }
    fn check(&self, config: &Value) -> Result<(), String> {
        config["limit"].as_i64().map(drop).ok_or_else(|| "limit must be a number".to_owned())
    }
    async fn open(&self, of: &Value, to: SourceTable) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Numbers(of["limit"].as_i64().unwrap_or(0), to)))
    }
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, dir, meta, store] = &arguments[..] else { return Err("LISTEN DIR META STORE")? };
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?.to_string();
    let mut options = DataOptions::new(address, dir, vec![meta.clone()], store);
    options.source_kinds.register(Arc::new(Kind))?;
    let raft = RaftService::default();
    let node = DataNode::start(options, raft.clone(), Arc::new(SystemClock)).await?;
    let mut routes = Routes::builder();
    node.add_services(routes.add_service(raft.into_server()));
    println!("ready {}", node.node_id());
    let server = Server::builder().add_routes(routes.routes());
    let stopped = async move { _ = stop.recv().await };
    Ok(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await?)
}
