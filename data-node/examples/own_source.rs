//! A data node with its own source kind, whose rows are the numbers below a limit.
use std::{collections::BTreeMap, error::Error, path::PathBuf, sync::Arc};

use arrow::array::{Int64Array, RecordBatch};
use serde_json::Value;
use tidewater_common::clock::SystemClock;
use tidewater_data_node::{DataNode, DataOptions};
use tidewater_raft_store::RaftService;
use tidewater_source_kinds::{
    Listing, RowSender, Source, SourceError, SourceKind, SourceTable, Split,
};
use tokio::{net::TcpListener, signal::unix};
use tonic::{service::Routes, transport::Server};

struct Numbers(i64, SourceTable);

#[async_trait::async_trait]
impl Source for Numbers {
    async fn list(&self) -> Result<Listing, SourceError> {
        let split = Split { name: "numbers".to_owned(), pin: BTreeMap::new(), bytes: 0 };
        Ok(Listing { snapshot: format!("{} numbers", self.0), splits: vec![split] })
    }
    async fn read(&self, _: &Split, rows: RowSender) -> Result<(), SourceError> {
        let numbers = Int64Array::from_iter_values(0..self.0);
        let batch = RecordBatch::try_new(self.1.schema.arrow(), vec![Arc::new(numbers)]);
        let batch = batch.map_err(|error| SourceError::Mismatch(error.to_string()))?;
        _ = rows.send(batch).await;
        Ok(())
    }
}

struct NumbersKind;

#[async_trait::async_trait]
impl SourceKind for NumbersKind {
    fn kind(&self) -> &'static str {
        "numbers"
    }
    fn check(&self, config: &Value) -> Result<(), String> {
        config["limit"].as_i64().map(drop).ok_or_else(|| "limit must be a number".to_owned())
    }
    async fn open(
        &self,
        config: &Value,
        table: SourceTable,
    ) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Numbers(config["limit"].as_i64().unwrap_or(0), table)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, dir, meta, store]: [String; 4] =
        arguments.try_into().map_err(|_| "LISTEN DIR META STORE")?;
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await?;
    let mut options =
        DataOptions::new(listener.local_addr()?.to_string(), PathBuf::from(dir), vec![meta], store);
    options.source_kinds.register(Arc::new(NumbersKind))?;
    let raft = RaftService::default();
    let node = DataNode::start(options, raft.clone(), Arc::new(SystemClock)).await?;
    let mut routes = Routes::builder();
    node.add_services(&mut routes);
    routes.add_service(raft.into_server());
    println!("ready {}", node.node_id());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let stopped = async move { _ = stop.recv().await };
    Ok(Server::builder()
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?)
}
