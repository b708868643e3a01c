//! Calls for the read policies, the capabilities and the frontiers of tables.

use tidewater_common::quote::quoted;
use tidewater_proto::v1;

use super::storage_call::CHANGE_TIMEOUT;
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

impl Client {
    /// Returns the frontiers of tables, in this order, and the holds that keep them back; without names, those of all
    /// tables. A refreshable table is readable through its last publication, or the epoch of a later hold.
    ///
    /// `since` is an estimate unless the table has a record with one: until its first hold, policy or capability, and after a
    /// truncation until its regions were asked. [`table_epochs`](Self::table_epochs) asks the regions. `upper` is the epoch of
    /// the last barrier; earlier ones may be incomplete in groups that lag. A new meta leader answers after its first barrier.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound` and others.
    pub async fn collection_frontiers(
        &self,
        tables: &[String],
    ) -> Result<Vec<v1::CollectionFrontiers>, ClientError> {
        let request = v1::GetCollectionFrontiersRequest { tables: tables.to_vec() };
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .storage(
                "collection frontiers",
                Repeat::Read,
                longest,
                request,
                |mut client, request| async move { client.get_collection_frontiers(request).await },
            )
            .await?;
        Ok(response.collections)
    }

    /// Sets the epochs of a table that remain readable without holds, and returns its frontiers. A weaker policy does not
    /// bring back epochs that cannot be read any more. With the empty policy, the table is dropped once it has no capabilities
    /// and no exports, as by [`drop_table`](Self::drop_table); then no frontiers are returned.
    ///
    /// `None`: those of the history of the cluster as it is now, which is copied. The first hold or policy of a table copies
    /// it, too. Repeat the call with `None` after a change of `meta --history`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `InvalidArgument` and others.
    pub async fn set_read_policy(
        &self,
        table: &str,
        policy: Option<v1::ReadPolicy>,
    ) -> Result<Option<v1::CollectionFrontiers>, ClientError> {
        let what = format!("setting the read policy of table {}", quoted(table));
        let request = v1::SetReadPolicyRequest { table: table.to_owned(), policy };
        let response = self
            .core
            .storage(
                &what,
                Repeat::Idempotent,
                CHANGE_TIMEOUT,
                request,
                |mut client, request| async move { client.set_read_policy(request).await },
            )
            .await?;
        Ok(response.frontiers)
    }

    /// Adds and takes away capabilities of tables, all or none. The least capability of a table keeps its epochs readable.
    ///
    /// A call with unknown outcome is not repeated, because the changes would be made twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `EpochBelowSince`, `InvalidCapabilities` and others;
    /// [`ClientError::OutcomeUnknown`] when the changes may still be made.
    pub async fn update_read_capabilities(
        &self,
        changes: Vec<v1::CapabilityChanges>,
    ) -> Result<(), ClientError> {
        let request = v1::UpdateReadCapabilitiesRequest { changes };
        self.core
            .storage(
                "changing read capabilities",
                Repeat::UnlessUnknown,
                CHANGE_TIMEOUT,
                request,
                |mut client, request| async move { client.update_read_capabilities(request).await },
            )
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::Reason;
    use tidewater_proto::v1::read_policy::Policy;

    use super::*;
    use crate::fake::FakeCluster;

    fn changes() -> Vec<v1::CapabilityChanges> {
        let changes = vec![v1::CapabilityChange { epoch: 7, difference: 1 }];
        vec![v1::CapabilityChanges { table: "t".to_owned(), changes }]
    }

    #[tokio::test]
    async fn capabilities_with_unknown_outcome_are_not_repeated() {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        // No effect: another node leads.
        cluster.storage.lock().refuse(Reason::NotLeader);
        client.update_read_capabilities(changes()).await.unwrap();
        assert_eq!(cluster.storage.lock().capability_changes, [changes()]);
        cluster.storage.lock().refuse(Reason::LeadershipLost);
        let error = client.update_read_capabilities(changes()).await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown { attempts: 1, .. }), "{error}");
        assert_eq!(cluster.storage.lock().capability_changes.len(), 1);
    }

    #[tokio::test]
    async fn policy_is_set_again_after_an_unknown_outcome() {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        cluster.storage.lock().refuse(Reason::LeadershipLost);
        let keep_all = v1::ReadPolicy { policy: Some(Policy::NoPolicy(true)) };
        let frontiers = client.set_read_policy("t", Some(keep_all.clone())).await.unwrap().unwrap();
        assert_eq!((frontiers.table.as_str(), &frontiers.policy), ("t", &Some(keep_all)));
        let cleared = client.set_read_policy("t", None).await.unwrap().unwrap();
        assert_eq!(cleared.policy, None);
    }

    #[tokio::test]
    async fn frontiers_are_those_of_the_named_tables() {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        for table in ["a", "b"] {
            client.set_read_policy(table, None).await.unwrap();
        }
        let names = async |tables: &[&str]| -> Vec<String> {
            let tables: Vec<String> = tables.iter().map(|name| (*name).to_owned()).collect();
            let found = client.collection_frontiers(&tables).await.unwrap();
            found.into_iter().map(|of| of.table).collect()
        };
        assert_eq!(names(&["b"]).await, ["b"]);
        assert_eq!(names(&[]).await, ["a", "b"]);
        cluster.storage.lock().refuse(Reason::TableNotFound);
        let error = client.collection_frontiers(&["c".to_owned()]).await.unwrap_err();
        let reason = error.refusal().map(|refusal| refusal.reason);
        assert_eq!(reason, Some(Reason::TableNotFound));
    }
}
