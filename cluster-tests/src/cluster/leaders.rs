//! Who leads what, asked of the nodes themselves.

use std::time::Duration;

use futures::future::join_all;
use tidewater_proto::v1::{CatalogSnapshot, NodeState, RegionInfo};

use super::Cluster;
use crate::direct::{Direct, RegionRef};
use crate::node::NodeSpec;
use crate::{HarnessError, Result, wait};

/// For one question to one node; a frozen one gives no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// For an election and what follows it, on a busy machine.
const LED_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// The leader of group 0 (index in [`Cluster::meta`]) and the catalog as it answers.
    ///
    /// # Errors
    /// When none answers in time.
    pub async fn meta_leader(&self) -> Result<(usize, CatalogSnapshot)> {
        wait::until("a meta node leads", LED_WITHIN, || async {
            let asked = self.meta.iter().enumerate().filter(|(_, node)| node.is_running());
            let answers = join_all(asked.map(|(index, node)| async move {
                let node = Direct::to(node.spec.listen, ANSWER_WITHIN);
                let answer = node.map_err(|error| error.to_string())?.catalog().await;
                answer.map(|catalog| (index, catalog)).map_err(|status| status.to_string())
            }))
            .await;
            first(answers)
        })
        .await
    }

    /// The catalog, from the leader of group 0.
    ///
    /// # Errors
    /// When none answers in time.
    pub async fn catalog(&self) -> Result<CatalogSnapshot> {
        Ok(self.meta_leader().await?.1)
    }

    /// The first region of a table.
    ///
    /// # Errors
    /// When the catalog has no such table or no route of it.
    pub async fn region(&self, table: &str) -> Result<RegionRef> {
        let catalog = self.catalog().await?;
        let missing = |what| HarnessError::violated(format!("the catalog has no {what} {table}"));
        let entry =
            catalog.tables.iter().find(|t| t.name == table).ok_or_else(|| missing("table"))?;
        let prefix = entry.table_id.to_be_bytes();
        let route = catalog
            .routes
            .iter()
            .find(|route| route.start.starts_with(&prefix))
            .ok_or_else(|| missing("route of table"))?;
        Ok(RegionRef {
            group_id: route.group_id,
            region_id: route.route_id,
            catalog_version: catalog.catalog_version,
            schema_version: entry.schema.as_ref().map_or(0, |schema| schema.version),
        })
    }

    /// The data node (index in [`Cluster::data`]) that leads the group of a table's first region.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn owner(&self, table: &str) -> Result<usize> {
        self.owner_other_than(table, None).await
    }

    /// The same, not asking one node, which may believe what is no longer so.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn owner_other_than(&self, table: &str, except: Option<usize>) -> Result<usize> {
        let region = self.region(table).await?;
        let what = format!("a data node leads group {}", region.group_id);
        wait::until(&what, LED_WITHIN, || async {
            let mut found = Vec::new();
            for (index, infos) in self.replicas(table, except, false).await {
                let infos = infos?;
                if infos.iter().any(|info| info.region_id == region.region_id && info.leader) {
                    found.push(index);
                }
            }
            match found.as_slice() {
                [index] => Ok(*index),
                other => Err(format!("led by {other:?}")),
            }
        })
        .await
    }

    /// What each running data node says of a table's regions.
    pub async fn replicas(
        &self,
        table: &str,
        except: Option<usize>,
        digest: bool,
    ) -> Vec<(usize, Result<Vec<RegionInfo>, String>)> {
        let asked = self
            .data
            .iter()
            .enumerate()
            .filter(|(index, node)| node.is_running() && Some(*index) != except);
        join_all(asked.map(|(index, node)| async move {
            let answer = match Direct::to(node.spec.listen, ANSWER_WITHIN) {
                Ok(node) => node.regions(table, digest).await.map_err(|s| s.to_string()),
                Err(error) => Err(error.to_string()),
            };
            (index, answer.map_err(|error| format!("{}: {error}", node.spec.name)))
        }))
        .await
    }

    /// The id of the node that is up at the address of `spec`.
    ///
    /// # Errors
    /// When the catalog knows none in time.
    pub async fn node_id(&self, spec: &NodeSpec) -> Result<u64> {
        let address = spec.advertise.to_string();
        wait::until(&format!("{} is registered", spec.name), LED_WITHIN, || async {
            let catalog = self.catalog().await.map_err(|error| error.to_string())?;
            let up = i32::from(NodeState::Up);
            let mut nodes = catalog.nodes.iter().filter(|node| node.address == address);
            // The last to come is the one that is there: ids only grow.
            match nodes.rfind(|node| node.state == up) {
                Some(node) => Ok(node.node_id),
                None => Err(format!("{:?}", catalog.nodes)),
            }
        })
        .await
    }
}

fn first<T>(answers: Vec<Result<T, String>>) -> Result<T, String> {
    let mut reasons = Vec::new();
    for answer in answers {
        match answer {
            Ok(value) => return Ok(value),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}
