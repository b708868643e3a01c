//! Catalog events without their content: a process with a thousand watchers needs no thousand catalogs.
//!
//! The messages have the field numbers of `CatalogSnapshot`, `CatalogDelta` and `WatchEvent`. Decoding
//! passes over every other field.

use tidewater_proto::v1::{GetCatalogChangesRequest, GetCatalogRequest, WatchRequest};
use tidewater_rpc::MESSAGE_BYTES;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Position of a catalog.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotHead {
    /// Id of the cluster, a UUID.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Incarnation of the catalog.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Revision of the catalog.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// Version of the routes.
    #[prost(uint64, tag = "4")]
    pub catalog_version: u64,
}

/// Position that a delta leads to.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct DeltaHead {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
}

/// Changes of the catalog since a revision.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ChangesHead {
    #[prost(message, repeated, tag = "2")]
    pub(super) deltas: Vec<DeltaHead>,
    /// The caller needs the whole catalog.
    #[prost(bool, tag = "3")]
    pub(super) snapshot_needed: bool,
}

/// An event of the catalog watch.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct EventHead {
    #[prost(oneof = "Head", tags = "1, 2, 3")]
    pub(super) event: Option<Head>,
}

/// Kind of an event.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(super) enum Head {
    #[prost(message, tag = "1")]
    Snapshot(SnapshotHead),
    #[prost(message, tag = "2")]
    Delta(DeltaHead),
    #[prost(uint64, tag = "3")]
    CurrentRevision(u64),
}

/// Opens a catalog watch.
pub(super) async fn watch(
    channel: Channel,
    request: WatchRequest,
) -> Result<Response<Streaming<EventHead>>, Status> {
    let mut grpc = client(channel).await?;
    let path = PathAndQuery::from_static("/tidewater.v1.Meta/Watch");
    let codec = ProstCodec::<WatchRequest, EventHead>::default();
    grpc.server_streaming(Request::new(request), path, codec).await
}

/// Fetches the catalog from the meta leader.
pub(super) async fn get_catalog(
    channel: Channel,
    request: Request<GetCatalogRequest>,
) -> Result<Response<SnapshotHead>, Status> {
    let mut grpc = client(channel).await?;
    let path = PathAndQuery::from_static("/tidewater.v1.Meta/GetCatalog");
    let codec = ProstCodec::<GetCatalogRequest, SnapshotHead>::default();
    grpc.unary(request, path, codec).await
}

/// Fetches the changes of the catalog since a revision from the meta leader.
pub(super) async fn get_changes(
    channel: Channel,
    request: Request<GetCatalogChangesRequest>,
) -> Result<Response<ChangesHead>, Status> {
    let mut grpc = client(channel).await?;
    let path = PathAndQuery::from_static("/tidewater.v1.Meta/GetCatalogChanges");
    let codec = ProstCodec::<GetCatalogChangesRequest, ChangesHead>::default();
    grpc.unary(request, path, codec).await
}

async fn client(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    // The connection's error, as the generated clients report it.
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    Ok(grpc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use tidewater_proto::v1::{self, watch_event::Event};

    #[test]
    fn heads_have_the_positions_of_the_events() {
        let snapshot = v1::CatalogSnapshot {
            cluster_id: "c".into(),
            incarnation: 2,
            revision: 3,
            catalog_version: 4,
            tables: vec![v1::Table { name: "t".into(), ..Default::default() }],
            has_table_changes: true,
            ..Default::default()
        };
        let delta = v1::CatalogDelta {
            revision: 9,
            catalog_version: 5,
            route_deletes: vec![1, 2],
            ..Default::default()
        };
        let head = |event| {
            let bytes = v1::WatchEvent { event: Some(event) }.encode_to_vec();
            EventHead::decode(bytes.as_slice()).unwrap().event.unwrap()
        };
        let expected = SnapshotHead {
            cluster_id: "c".into(),
            incarnation: 2,
            revision: 3,
            catalog_version: 4,
        };
        assert_eq!(head(Event::Snapshot(snapshot)), Head::Snapshot(expected));
        assert_eq!(head(Event::Delta(delta)), Head::Delta(DeltaHead { revision: 9 }));
        assert_eq!(head(Event::CurrentRevision(7)), Head::CurrentRevision(7));
    }
}
