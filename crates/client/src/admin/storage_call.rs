//! Call of the meta leader about holds, policies and frontiers.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::storage_admin_client::StorageAdminClient;
use tidewater_rpc::timed;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::core::{Core, Repeat};
use crate::error::ClientError;

/// Timeout of an attempt to change what holds back the epochs of tables. The first change of a table alters it and asks its
/// regions, for up to 30 s, and waits up to 5 s for the first barrier of a leader.
pub(super) const CHANGE_TIMEOUT: Duration = Duration::from_secs(40);

impl Core {
    /// Calls the meta leader until the outcome is known or the deadline has passed. `longest`: timeout of an attempt.
    pub(super) async fn storage<R, T, F>(
        &self,
        what: &str,
        repeat: Repeat,
        longest: Duration,
        request: R,
        call: impl Fn(StorageAdminClient<Channel>, Request<R>) -> F,
    ) -> Result<T, ClientError>
    where
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(GroupId::META, what, repeat, longest, |channel, timeout| {
            call(self.router.storage(channel), timed(request.clone(), timeout))
        })
        .await
    }
}
