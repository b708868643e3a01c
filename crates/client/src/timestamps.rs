//! Timestamps of the cluster.

use std::ops::Range;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1;
use tidewater_rpc::timed;

use crate::catalog::Timestamp;
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

impl Client {
    /// Returns a timestamp above all that any client has received before the call.
    ///
    /// # Errors
    /// As [`Client::next_timestamps`].
    pub async fn next_timestamp(&self) -> Result<Timestamp, ClientError> {
        self.next_timestamps(1).await.map(|range| range.start)
    }

    /// Returns `count` timestamps in a row, from 1 to 1,000,000, above all that any client has received before the
    /// call. Their numbers follow each other.
    ///
    /// # Errors
    /// Those of finding the meta leader. [`ClientError::Refused`] with `InvalidArgument` for a count out of range.
    pub async fn next_timestamps(&self, count: u32) -> Result<Range<Timestamp>, ClientError> {
        let cluster_id = self.catalog().cluster_id().to_string();
        let request = v1::NextTimestampsRequest { cluster_id, count };
        let router = &self.core.router;
        let timeout = self.options().attempt_timeout;
        let given = self
            .core
            .call(GroupId::META, "timestamps", Repeat::Idempotent, timeout, |channel, timeout| {
                let mut client = router.meta(channel);
                let request = request.clone();
                async move { client.next_timestamps(timed(request, timeout)).await }
            })
            .await?;
        let end = given.first.saturating_add(given.count.into());
        Ok(Timestamp::from_number(given.first)..Timestamp::from_number(end))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidewater_common::refusal::Refusal;
    use tidewater_proto::v1::Reason;

    use crate::fake::FakeCluster;

    #[tokio::test]
    async fn timestamps_are_asked_for_again_below_the_ceiling() {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        let past = || {
            let refusal = Refusal::new(Reason::Overloaded, "past the ceiling");
            refusal.retry_after(Duration::from_millis(1))
        };
        cluster.state.lock().meta_refusals = vec![past(), past()].into();
        let given = client.next_timestamps(5).await.unwrap();
        assert_eq!(given.end.number() - given.start.number(), 5);
        assert!(client.next_timestamp().await.unwrap() >= given.end);
        assert!(cluster.state.lock().meta_refusals.is_empty());
    }
}
