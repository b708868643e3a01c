//! Operations on routes.

use bytes::Bytes;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1;

use crate::client::Client;
use crate::error::ClientError;

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
            for_load: false,
        };
        let what = format!("splitting route {route}");
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.split_route(request).await
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.child_ids.into_iter().map(RegionId).collect())
    }

    /// Merges two neighbouring routes of one table and group, in any order. Returns the id of the route that has
    /// replaced them. Writes to them wait for a short time.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `RegionNotFound`, `InvalidArgument` for routes that cannot be merged,
    /// `RouteBusy`, `TableBusy`, `ProcedureCancelled`, `ProcedureSuperseded` and others.
    pub async fn merge_routes(
        &self,
        route: RegionId,
        neighbour: RegionId,
    ) -> Result<RegionId, ClientError> {
        let request = v1::MergeRoutesRequest {
            request_id: self.options().ids.next().to_string(),
            route_id: route.get(),
            neighbour_id: neighbour.get(),
            expected_version: 0,
        };
        let what = format!("merging routes {route} and {neighbour}");
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.merge_routes(request).await
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(RegionId(response.child_id))
    }

    /// Moves a route to another group. Its files stay where they are; writes to it wait for a short time. Returns when the
    /// group serves the route.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `RegionNotFound`, `GroupNotFound`, `InvalidArgument` for the group in which the route
    /// is, `RouteBusy`, `TableBusy`, `ProcedureCancelled`, `ProcedureSuperseded` and others.
    pub async fn move_route(&self, route: RegionId, target: GroupId) -> Result<(), ClientError> {
        let request = v1::MoveRouteRequest {
            request_id: self.options().ids.next().to_string(),
            route_id: route.get(),
            target_group_id: target.get(),
            expected_version: 0,
        };
        let what = format!("moving route {route} to group {target}");
        self.core
            .change(&what, request, |mut client, request| async move {
                client.move_route(request).await
            })
            .await?;
        self.core.refresh_catalog().await.map(drop)
    }
}
