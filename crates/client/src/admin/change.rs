//! Call of the meta leader that changes the cluster.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_rpc::timed;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::core::{Core, Repeat};
use crate::error::ClientError;

/// Timeout of an attempt to change a table, a route or a node. The call returns when the change has taken effect, which
/// may take a step of each region.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

impl Core {
    /// Calls the meta leader until the outcome is known or the deadline has passed. The leader recognizes a repeated
    /// request.
    pub(super) async fn change<R, T, F>(
        &self,
        what: &str,
        request: R,
        call: impl Fn(AdminClient<Channel>, Request<R>) -> F,
    ) -> Result<T, ClientError>
    where
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(GroupId::META, what, Repeat::Idempotent, CHANGE_TIMEOUT, |channel, timeout| {
            call(self.router.admin(channel), timed(request.clone(), timeout))
        })
        .await
    }
}
