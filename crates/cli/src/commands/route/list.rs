//! `route list`

use clap::Args;
use serde::Serialize;
use tidewater_client::catalog::{Catalog, RouteInfo};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{self, Listed, hex};

/// Options of `route list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater route list --table flights --output json")]
pub(crate) struct Options {
    /// List routes of this table only
    #[arg(long, value_name = "TABLE", env = "TIDEWATER_TABLE")]
    table: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// One route. The JSON field names are stable; keys are row keys in hexadecimal.
#[derive(Debug, Serialize)]
pub(super) struct RouteLine {
    pub(super) route_id: u64,
    pub(super) table: String,
    pub(super) start: String,
    pub(super) end: Option<String>,
    pub(super) group_id: u64,
    pub(super) state: &'static str,
    pub(super) parent_route_id: u64,
}

impl RouteLine {
    pub(super) fn new(route: &RouteInfo, table: String) -> Self {
        Self {
            route_id: route.region.get(),
            table,
            start: hex(&route.range.start),
            end: route.range.end.as_deref().map(hex),
            group_id: route.group.get(),
            state: route.state.name(),
            parent_route_id: route.parent.get(),
        }
    }
}

impl Listed for RouteLine {
    const HEADINGS: &'static [&'static str] =
        &["ROUTE", "TABLE", "START", "END", "GROUP", "STATE", "PARENT"];

    fn cells(&self) -> Vec<String> {
        let start = if self.start.is_empty() { "-".to_owned() } else { self.start.clone() };
        let parent = match self.parent_route_id {
            0 => "-".to_owned(),
            parent => parent.to_string(),
        };
        vec![
            self.route_id.to_string(),
            self.table.clone(),
            start,
            self.end.clone().unwrap_or_else(|| "-".to_owned()),
            self.group_id.to_string(),
            self.state.to_owned(),
            parent,
        ]
    }
}

/// Lists the routes in key order.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let only = match &options.table {
        Some(name) => Some(client.table(name).await?.id),
        None => None,
    };
    let catalog = client.catalog();
    let lines: Vec<RouteLine> = catalog
        .routes()
        .filter(|route| only.is_none_or(|table| route.table == table))
        .map(|route| RouteLine::new(route, table_name(&catalog, route)))
        .collect();
    output::list(options.client.output, &lines)
}

/// Returns the name of a route's table, or its id if the catalog does not have it.
pub(super) fn table_name(catalog: &Catalog, route: &RouteInfo) -> String {
    catalog.table(route.table).map_or_else(|| route.table.to_string(), |table| table.name.clone())
}

#[cfg(test)]
mod tests {
    use tidewater_client::catalog::RouteState;
    use tidewater_common::ids::{GroupId, RegionId, TableId};
    use tidewater_common::keys::KeyRange;

    use super::*;

    #[test]
    fn route_has_stable_json_fields() {
        let route = RouteInfo {
            region: RegionId(3),
            table: TableId(1),
            range: KeyRange { start: vec![0, 255], end: None },
            group: GroupId(2),
            state: RouteState::Active,
            parent: RegionId(0),
        };
        assert_eq!(
            serde_json::to_string(&RouteLine::new(&route, "t".into())).unwrap(),
            r#"{"route_id":3,"table":"t","start":"00ff","end":null,"group_id":2,"state":"active","parent_route_id":0}"#
        );
    }
}
