//! Forged calls of refreshes and barriers.

use tidewater_cluster_tests::Result;
use tidewater_proto::v1::barriers_client::BarriersClient;
use tidewater_proto::v1::refresh_work_client::RefreshWorkClient;
use tidewater_proto::v1::{
    BarrierTarget, GroupEpoch, InjectBarrierRequest, ListSourceRequest, ListSourceResponse,
    LoadSplitsRequest, LoadSplitsResponse, MergeRegionRequest, MergeRegionResponse, Reason,
    SourceRecord, SourceSplit,
};
use tonic::Status;
use tonic::transport::Channel;

use super::calls::Forger;
use super::refused;
use super::target::Target;

/// Reads, loads and merges of tables that are not refreshed.
const REFUSED: &[Reason] =
    &[Reason::NotRefreshable, Reason::TableNotFound, Reason::ProcedureSuperseded];

/// Sends calls that read sources and merge their rows.
pub(super) async fn forge_refresh_calls(target: &Target, node: &Forger) -> Result<()> {
    let table = target.table()?.table_id;
    for table in [table, table + 1, 0, u32::MAX] {
        refused("list of a source", node.list_source(table).await, REFUSED)?;
        refused("load of splits", node.load_splits(table).await, REFUSED)?;
    }
    for region in [target.region.region_id, 4_711, u64::MAX] {
        for area in [&[][..], &[0; 16], &[0xff; 17]] {
            let merged = node.merge_region(target.region.group_id, region, area).await;
            refused("merge of a staging area", merged, REFUSED)?;
        }
    }
    Ok(())
}

/// Sends barriers at other epochs than those of the group: none begins an epoch.
pub(super) async fn forge_barriers(target: &Target, node: &Forger) -> Result<()> {
    let group = target.region.group_id;
    let barrier = |previous| vec![BarrierTarget { group_id: group, previous }];
    for ahead in [u64::MAX, u64::MAX >> 1] {
        let injected = node.inject_barrier(ahead, barrier(0)).await;
        refused("barrier of a later time", injected, &[Reason::InvalidArgument])?;
    }
    for (epoch, previous) in [(1, 0), (1 << 16, 1), (2, u64::MAX)] {
        let groups = node.inject_barrier(epoch, barrier(previous)).await;
        let groups = groups.map_err(|status| super::violated(&status))?;
        let began = |group: &GroupEpoch| group.epoch == epoch;
        if groups.iter().any(began) {
            return Err(super::violated(&format!("a forged barrier began epoch {epoch}")));
        }
    }
    Ok(())
}

/// A source that would read any file.
fn forged_source() -> Option<SourceRecord> {
    let config = r#"{"url": "file:///etc"}"#.to_owned();
    Some(SourceRecord { source_id: 1, kind: "csv".to_owned(), config })
}

impl Forger {
    fn refreshes(&self) -> RefreshWorkClient<Channel> {
        RefreshWorkClient::new(self.channel.clone())
    }

    async fn list_source(&self, table_id: u32) -> Result<ListSourceResponse, Status> {
        let request =
            ListSourceRequest { header: self.header(), table_id, source: forged_source() };
        Ok(self.refreshes().list_source(request).await?.into_inner())
    }

    /// Returns the first message of a load.
    async fn load_splits(&self, table_id: u32) -> Result<Option<LoadSplitsResponse>, Status> {
        let split = SourceSplit { name: "rows.csv".to_owned(), ..SourceSplit::default() };
        let (header, source) = (self.header(), forged_source());
        let request = LoadSplitsRequest { header, table_id, source, splits: vec![split] };
        self.refreshes().load_splits(request).await?.into_inner().message().await
    }

    async fn merge_region(
        &self,
        group_id: u64,
        region_id: u64,
        area: &[u8],
    ) -> Result<MergeRegionResponse, Status> {
        let area_id = area.to_vec().into();
        let request = MergeRegionRequest {
            header: self.header(),
            group_id,
            region_id,
            area_id,
            observe: false,
        };
        Ok(self.refreshes().merge_region(request).await?.into_inner())
    }

    /// Returns the epochs of the groups after the barrier.
    async fn inject_barrier(
        &self,
        epoch: u64,
        groups: Vec<BarrierTarget>,
    ) -> Result<Vec<GroupEpoch>, Status> {
        let header = self.header();
        let request =
            InjectBarrierRequest { header, epoch, groups, ..InjectBarrierRequest::default() };
        let mut client = BarriersClient::new(self.channel.clone());
        Ok(client.inject_barrier(request).await?.into_inner().groups)
    }
}
