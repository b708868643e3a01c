//! `route watch`

use clap::Args;
use serde::Serialize;
use tidewater_client::catalog::{Catalog, RouteInfo};
use tidewater_common::ids::TableId;

use super::list::{RouteLine, table_name};
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `route watch`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater route watch --table flights\n  tidewater route watch --changes 3 --output json"
)]
pub(crate) struct Options {
    /// Print changes of the routes of this table only
    #[arg(long, value_name = "TABLE", env = "TIDEWATER_TABLE")]
    table: Option<String>,

    /// End after this number of changes; without it, on an interrupt
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    changes: Option<u64>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Removed,
    Added,
    Changed,
}

/// Change of a route. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Change {
    catalog_version: u64,
    change: Kind,
    #[serde(flatten)]
    route: RouteLine,
}

impl Change {
    fn new(change: Kind, route: &RouteInfo, of: &Catalog, version: u64) -> Self {
        Self {
            catalog_version: version,
            change,
            route: RouteLine::new(route, table_name(of, route)),
        }
    }

    fn text(&self) -> String {
        let change = match self.change {
            Kind::Removed => "removed",
            Kind::Added => "added",
            Kind::Changed => "changed",
        };
        let RouteLine { route_id, table, start, end, group_id, state, .. } = &self.route;
        let keys = format!("[{start}, {})", end.as_deref().unwrap_or("end"));
        let version = self.catalog_version;
        format!(
            "version {version}: route {route_id} {change}: table {table}, keys {keys}, group {group_id}, {state}"
        )
    }
}

/// Prints the changes of the routes from now on.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let only = match &options.table {
        Some(name) => Some(client.table(name).await?.id),
        None => None,
    };
    let mut known = client.catalog();
    let mut left = options.changes;
    while left != Some(0) {
        let now = client.changed_catalog(&known).await?;
        for change in changes(&known, &now, only) {
            if left == Some(0) {
                break;
            }
            left = left.map(|left| left - 1);
            fact(options.client.output, &change, Change::text)?;
        }
        if let (Some(table), Some(name)) = (only, &options.table)
            && now.table(table).is_none()
        {
            return Err(Failure::not_found(format!("table {name:?} was dropped: its watch ends")));
        }
        known = now;
    }
    Ok(())
}

/// Returns the routes that were removed, in key order, then those that were added or changed.
fn changes(before: &Catalog, after: &Catalog, only: Option<TableId>) -> Vec<Change> {
    let version = after.version().get();
    let is_of = |route: &RouteInfo| only.is_none_or(|table| route.table == table);
    let removed = before
        .routes()
        .filter(|route| is_of(route) && after.route(route.region).is_none())
        .map(|route| Change::new(Kind::Removed, route, before, version));
    let present = after.routes().filter(|route| is_of(route)).filter_map(|route| {
        let kind = match before.route(route.region) {
            None => Kind::Added,
            Some(was) if was != route => Kind::Changed,
            Some(_) => return None,
        };
        Some(Change::new(kind, route, after, version))
    });
    removed.chain(present).collect()
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;

    use super::*;

    /// A catalog with routes of table 1: id, first key and group.
    fn catalog(version: u64, routes: &[(u64, u8, u64)]) -> Catalog {
        let starts = routes.iter().skip(1).map(|(_, start, _)| Some(*start)).chain([None]);
        let routes = routes.iter().zip(starts).map(|((route_id, start, group_id), end)| {
            let key = |key: u8| vec![0, 0, 0, 1, key].into();
            let end = end.map_or_else(|| vec![0, 0, 0, 2].into(), key);
            v1::Route {
                route_id: *route_id,
                start: if *start == 0 { vec![0, 0, 0, 1].into() } else { key(*start) },
                end: Some(end),
                group_id: *group_id,
                ..v1::Route::default()
            }
        });
        Catalog::from_snapshot(&v1::CatalogSnapshot {
            catalog_version: version,
            revision: version,
            cluster_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            routes: routes.collect(),
            ..v1::CatalogSnapshot::default()
        })
        .unwrap()
    }

    #[test]
    fn changes_between_catalogs_are_listed() {
        let before = catalog(4, &[(7, 0, 1), (8, 9, 1)]);
        let after = catalog(5, &[(9, 0, 1), (10, 4, 1), (8, 9, 2)]);
        let found = changes(&before, &after, None);
        let found: Vec<_> =
            found.iter().map(|change| (change.change, change.route.route_id)).collect();
        let expected =
            [(Kind::Removed, 7), (Kind::Added, 9), (Kind::Added, 10), (Kind::Changed, 8)];
        assert_eq!(found, expected);
        assert_eq!(changes(&before, &after, Some(TableId(2))).len(), 0);
        assert_eq!(changes(&after, &after, None).len(), 0);
    }

    #[test]
    fn change_has_stable_json_fields_and_text() {
        let [before, after] = [catalog(4, &[]), catalog(5, &[(7, 0, 1)])];
        let change = changes(&before, &after, None).remove(0);
        assert_eq!(
            serde_json::to_string(&change).unwrap(),
            r#"{"catalog_version":5,"change":"added","route_id":7,"table":"1","start":"","end":null,"group_id":1,"state":"active","parent_route_id":0}"#
        );
        let text = "version 5: route 7 added: table 1, keys [, end), group 1, active";
        assert_eq!(change.text(), text);
    }
}
