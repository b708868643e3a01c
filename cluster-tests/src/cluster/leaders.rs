//! Leaders and replicas of groups, as the nodes themselves report them.

use std::time::Duration;

use futures::future::join_all;
use tidewater_proto::v1::{CatalogSnapshot, NodeState, RegionInfo};

use super::Cluster;
use crate::direct::{NodeClient, RegionRef};
use crate::node::NodeSpec;
use crate::{HarnessError, Result, wait};

/// Deadline of one call to one node; a frozen node does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Limit for an election and its consequences on a busy machine.
const LED_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Returns the leader of group 0 (index in [`Cluster::meta`]) and its catalog.
    ///
    /// # Errors
    /// If no leader answers in time.
    pub async fn meta_leader(&self) -> Result<(usize, CatalogSnapshot)> {
        wait::until("a meta node leads", LED_WITHIN, || async {
            let running = self.meta.iter().enumerate().filter(|(_, node)| node.is_running());
            let answers = join_all(running.map(|(index, node)| async move {
                let node = NodeClient::new(node.spec.listen, ANSWER_WITHIN);
                let answer = node.map_err(|error| error.to_string())?.catalog().await;
                answer.map(|catalog| (index, catalog)).map_err(|status| status.to_string())
            }))
            .await;
            first(answers)
        })
        .await
    }

    /// Returns the catalog of the leader of group 0.
    ///
    /// # Errors
    /// If no leader answers in time.
    pub async fn catalog(&self) -> Result<CatalogSnapshot> {
        Ok(self.meta_leader().await?.1)
    }

    /// Returns the first region of a table.
    ///
    /// # Errors
    /// If the catalog lacks the table or its routes.
    pub async fn region(&self, table: &str) -> Result<RegionRef> {
        let catalog = self.catalog().await?;
        let missing = |what| HarnessError::violated(format!("the catalog has no {what} {table}"));
        let entry = catalog
            .tables
            .iter()
            .find(|entry| entry.name == table)
            .ok_or_else(|| missing("table"))?;
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

    /// Returns the data node (index in [`Cluster::data`]) that leads the group of a table's first region.
    ///
    /// # Errors
    /// If the group has no leader in time.
    pub async fn owner(&self, table: &str) -> Result<usize> {
        self.owner_other_than(table, None).await
    }

    /// Like [`owner`](Self::owner), without asking the node `except`, which may have outdated state.
    ///
    /// # Errors
    /// If the group has no leader in time.
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

    /// Returns the state of a table's regions on each running data node.
    pub async fn replicas(
        &self,
        table: &str,
        except: Option<usize>,
        digest: bool,
    ) -> Vec<(usize, Result<Vec<RegionInfo>, String>)> {
        let running = self
            .data
            .iter()
            .enumerate()
            .filter(|(index, node)| node.is_running() && Some(*index) != except);
        join_all(running.map(|(index, node)| async move {
            let answer = match NodeClient::new(node.spec.listen, ANSWER_WITHIN) {
                Ok(node) => node.regions(table, digest).await.map_err(|status| status.to_string()),
                Err(error) => Err(error.to_string()),
            };
            (index, answer.map_err(|error| format!("{}: {error}", node.spec.name)))
        }))
        .await
    }

    /// Returns the id of the node that is up at the address of `spec`.
    ///
    /// # Errors
    /// If the catalog has no such node in time.
    pub async fn node_id(&self, spec: &NodeSpec) -> Result<u64> {
        let address = spec.advertise.to_string();
        wait::until(&format!("{} is registered", spec.name), LED_WITHIN, || async {
            let catalog = self.catalog().await.map_err(|error| error.to_string())?;
            let up = i32::from(NodeState::Up);
            let mut nodes = catalog.nodes.iter().filter(|node| node.address == address);
            // Ids only grow, so the last node at the address is the current one.
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
