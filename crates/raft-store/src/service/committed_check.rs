use openraft::raft::AppendEntriesRequest;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::host::RaftHost;
use crate::log_store::StoreError;
use crate::types::TypeConfig;

impl RaftHost {
    /// Refuses an append that contradicts entries which this replica knows to be committed. Its
    /// sender has lost them, or never had them.
    pub(super) async fn check_committed(
        &self,
        group: GroupId,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<(), Refusal> {
        let log = self.log(group);
        let checked = log.check_append(&request.vote, request.prev_log_id, &request.entries);
        checked.await.map_err(|error| {
            tracing::warn!(%group, %error, "refused an append of another node");
            let reason = match error {
                StoreError::ContradictsCommitted { .. } => Reason::InvalidArgument,
                _ => Reason::Internal,
            };
            Refusal::new(reason, error.to_string())
        })
    }
}
