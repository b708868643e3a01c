//! Operations on routes.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1;
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Timeout of an attempt to split a route. The call returns after the group has replaced the region.
const SPLIT_TIMEOUT: Duration = Duration::from_secs(30);

impl Client {
    /// Splits a route at a row key, which becomes the first key of the second child. Returns the ids of the
    /// children, in key order, when they have replaced the route.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `RegionNotFound`, `KeyOutsideRegion`, `KeyOnBoundary`, `RouteBusy`,
    /// `TableBusy`, `ProcedureCancelled` and others.
    pub async fn split_route(
        &self,
        route: RegionId,
        key: Bytes,
    ) -> Result<Vec<RegionId>, ClientError> {
        let request = v1::SplitRouteRequest {
            request_id: self.options().ids.next().to_string(),
            route_id: route.get(),
            split_key: key,
            expected_version: 0,
        };
        let router = &self.core.router;
        let what = format!("splitting route {route}");
        let response = self
            .core
            .call(GroupId::META, &what, Repeat::Idempotent, SPLIT_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                let request = request.clone();
                async move { client.split_route(timed(request, timeout)).await }
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.child_ids.into_iter().map(RegionId).collect())
    }
}
