//! Bootstrap: the first command of a cluster.

use tidewater_common::ids::{ClusterId, Incarnation};
use tidewater_proto::v1;

use super::CommandError;
use crate::catalog::{CatalogChange, Header, MetaState};

pub(super) fn decide(
    state: &MetaState,
    command: &v1::BootstrapCluster,
) -> Result<CatalogChange, CommandError> {
    let cluster_id: ClusterId = command
        .cluster_id
        .parse()
        .map_err(|_| CommandError::Malformed("the cluster id is not a UUID".to_owned()))?;
    if let Some(existing) = state.header().cluster_id {
        return Err(CommandError::AlreadyBootstrapped(existing));
    }
    let header = Header {
        cluster_id: Some(cluster_id),
        incarnation: Incarnation::FIRST,
        time_ms: command.now_ms,
        ..state.header().clone()
    };
    Ok(CatalogChange { header: Some(header), ..CatalogChange::default() })
}
