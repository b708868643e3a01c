//! Benchmark of route engines by their number of routes: lookup, count of an access, delta and snapshot.
//!
//! The keys are random. `tables`: 10 routes in each table. `one_table`: all routes in one table, and their starts
//! have the same first nine bytes after the id of the table.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "common/counting.rs"]
mod counting;
#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "common/shape.rs"]
mod shape;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use tidewater_catalog::engine::AccessKind;
use tidewater_catalog::{RouteDelta, RouteDescriptor, RouteEngine, RouteSnapshot, RouteState};
use tidewater_common::ids::{CatalogVersion, Epoch, GroupId, Incarnation, RegionId, TableId};
use tidewater_common::keys::global_key;

/// Number of different keys; more than the caches of a core have lines for.
const KEYS: usize = 1 << 16;

/// Routes of a benchmark, and keys in them.
struct Shape {
    name: &'static str,
    snapshot: RouteSnapshot,
    keys: Vec<Vec<u8>>,
}

/// Returns a sequence of random numbers (splitmix64).
fn random() -> impl Iterator<Item = u64> {
    (1u64..).map(|number| {
        let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

fn tables(routes: u64) -> Shape {
    let tables = routes / 10;
    let catalog = shape::snapshot(u32::try_from(tables).unwrap());
    let key = |bits: u64| {
        let table = TableId(u32::try_from(bits % tables).unwrap() + 1);
        global_key(table, &((bits >> 13) % (10 << 48)).to_be_bytes())
    };
    let keys = random().take(KEYS).map(key).collect();
    Shape { name: "tables", snapshot: RouteSnapshot::try_from(&catalog).unwrap(), keys }
}

fn one_table(routes: u64) -> Shape {
    let table = TableId(1);
    let bound = |number: u64| match number {
        0 => global_key(table, &[]),
        _ => global_key(table, format!("customer-{number:012}").as_bytes()),
    };
    let route = |number: u64| RouteDescriptor {
        route_id: RegionId(number + 1),
        start: bound(number),
        end: Some(if number + 1 == routes {
            global_key(TableId(2), &[])
        } else {
            bound(number + 1)
        }),
        group_id: GroupId(1),
        state: RouteState::Active,
        parent_route_id: None,
        epoch: Epoch(0),
        incarnation: Incarnation::FIRST,
    };
    let snapshot = RouteSnapshot {
        incarnation: Incarnation::FIRST,
        version: CatalogVersion(1),
        routes: (0..routes).map(route).collect(),
    };
    let key = |bits: u64| [bound(bits % routes), vec![b'x']].concat();
    Shape { name: "one_table", snapshot, keys: random().take(KEYS).map(key).collect() }
}

fn engines(criterion: &mut Criterion) {
    for routes in [1_000, 10_000, 100_000] {
        for shape in [tables(routes), one_table(routes)] {
            measure(criterion, routes, &shape);
        }
    }
}

fn measure(criterion: &mut Criterion, routes: u64, shape: &Shape) {
    let engine = RouteEngine::new();
    let before = counting::made();
    engine.apply_snapshot(shape.snapshot.clone()).unwrap();
    let after = counting::made();
    let bytes = after.bytes - before.bytes - (after.freed_bytes - before.freed_bytes);
    println!("{}: memory of {routes} routes: {bytes} bytes", shape.name);
    let mut group = criterion.benchmark_group(format!("route_engine_{}", shape.name));
    let mut keys = shape.keys.iter().cycle();
    group.bench_function(BenchmarkId::new("get_route", routes), |bencher| {
        bencher.iter(|| black_box(engine.get_route(keys.next().unwrap())).is_some());
    });
    group.bench_function(BenchmarkId::new("record_access", routes), |bencher| {
        bencher.iter(|| engine.record_access(keys.next().unwrap(), AccessKind::Read, 100));
    });
    let moved = &shape.snapshot.routes[shape.snapshot.routes.len() / 2];
    group.bench_function(BenchmarkId::new("apply_delta", routes), |bencher| {
        bencher.iter(|| {
            let previous = engine.version();
            let version = CatalogVersion(previous.get() + 1);
            let upserts = vec![moved.clone()];
            engine.apply_delta(RouteDelta { previous, version, upserts, deletes: vec![] }).unwrap();
        });
    });
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("apply_snapshot", routes), |bencher| {
        let prepare = || (RouteEngine::new(), shape.snapshot.clone());
        let apply = |(engine, snapshot): (RouteEngine, _)| {
            engine.apply_snapshot(snapshot).unwrap();
            engine
        };
        bencher.iter_batched(prepare, apply, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, engines);
criterion_main!(benches);
