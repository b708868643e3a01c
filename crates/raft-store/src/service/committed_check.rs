use std::net::SocketAddr;

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
        from: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let log = self.log(group);
        let checked = log.check_append(&request.vote, request.prev_log_id, &request.entries);
        checked.await.map_err(|error| match error {
            StoreError::ContradictsCommitted { .. } => {
                let text = error.to_string();
                self.note_refusal(group, "committed", &text, from);
                Refusal::new(Reason::InvalidArgument, text)
            }
            _ => Refusal::new(Reason::Internal, error.to_string()),
        })
    }
}
