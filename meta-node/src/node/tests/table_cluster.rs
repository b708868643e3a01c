//! Fixture: a meta node at the highest level, and a data node with a table.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, NodeId, TableId};
use tidewater_proto::v1::storage_admin_client::StorageAdminClient;
use tidewater_proto::v1::{self, meta_command::Kind};
use tonic::transport::Channel;

use super::cluster::{MetaCluster, serve, until};
use super::data_nodes::{FakeDataNode, FakeDataNodes};
use crate::commands::testing::table;
use crate::leader::BarrierOptions;
use crate::services::RunningReplica;
use crate::{Bootstrap, MetaOptions};

/// A time on which the clocks agree: epochs begin in 2024.
pub(super) const NOW_MS: u64 = 1_800_000_000_000;
/// Time for which epochs can be read without holds. It exceeds the age of those that the regions report.
const HISTORY: Duration = Duration::from_secs(3_600);
/// Oldest readable epochs that the two regions of the table report. The later one is that of the table.
pub(super) const REPORTED: [u64; 2] =
    [Epoch::at_ms(NOW_MS - 60_000).get(), Epoch::at_ms(NOW_MS - 30_000).get()];

/// A meta node at the highest level, and a data node with table "t".
pub(super) struct TableCluster {
    pub(super) meta: MetaCluster,
    pub(super) data: FakeDataNode,
    pub(super) hosted: Arc<Mutex<FakeDataNodes>>,
    pub(super) running: RunningReplica,
    pub(super) table: TableId,
    pub(super) regions: Vec<u64>,
}

/// Starts the meta node.
async fn start_node(meta: &mut MetaCluster, bootstrap: Bootstrap) {
    let barriers = BarrierOptions { interval: Duration::from_millis(100), history: HISTORY };
    let options = MetaOptions { barriers, ..meta.options(1, bootstrap) };
    let node = serve(options, &meta.peers[&NodeId(1)]).await.unwrap();
    meta.nodes.insert(1, node);
}

impl TableCluster {
    pub(super) async fn start() -> Self {
        let mut meta = MetaCluster::new(1);
        start_node(&mut meta, Bootstrap::Once).await;
        let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
        let data = FakeDataNode::start(&meta, 1, &hosted).await;
        meta.raise_to(FeatureLevel::HIGHEST).await;
        let running = meta.nodes[&1].meta.slot().get().unwrap();
        // The clocks of the fake nodes are unknown.
        let agreed = v1::AdvanceTime { now_ms: NOW_MS, agreed_ms: NOW_MS };
        running.group.propose(Kind::AdvanceTime(agreed)).await.unwrap();
        let request = v1::CreateTableRequest { regions: 2, ..table(10, "t") };
        let table = TableId(meta.create_table(request).await.unwrap().table_id);
        let state = running.group.view.read();
        let regions: Vec<u64> = state.routes_of(table).map(|route| route.route_id.get()).collect();
        hosted.lock().sinces = regions.iter().copied().zip(REPORTED).collect();
        let cluster = Self { meta, data, hosted, running, table, regions };
        until("a barrier of the agreed time", || cluster.upper() >= Epoch::at_ms(NOW_MS)).await;
        cluster
    }

    /// Stops the meta node, and starts it again: it leads in another term.
    pub(super) async fn restarted(self) -> Self {
        let Self { mut meta, data, hosted, running, table, regions } = self;
        drop(running);
        meta.nodes.remove(&1).unwrap().stop().await;
        start_node(&mut meta, Bootstrap::IfEmpty).await;
        meta.leader().await;
        let running = meta.nodes[&1].meta.slot().get().unwrap();
        Self { meta, data, hosted, running, table, regions }
    }

    pub(super) async fn client(&self) -> StorageAdminClient<Channel> {
        StorageAdminClient::new(self.meta.channel(1).await)
    }

    /// Epoch of the last barrier.
    pub(super) fn upper(&self) -> Epoch {
        let leading = self.running.group.leading();
        let last = leading.and_then(|term| self.running.observations.sent_epochs.last(term));
        last.map(|(_, upper)| upper).unwrap_or_default()
    }

    pub(super) async fn stop(mut self) {
        drop(self.running);
        self.data.stop().await;
        self.meta.nodes.remove(&1).unwrap().stop().await;
    }
}
