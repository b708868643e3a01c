//! Benchmark of a catalog: application of a delta, by the number of tables.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "common/shape.rs"]
mod shape;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidewater_catalog::Catalog;

fn apply_delta(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("catalog_delta");
    for tables in [100, 1_000, 10_000] {
        let catalog = Catalog::from_snapshot(&shape::snapshot(tables)).unwrap();
        let delta = shape::delta(tables);
        group.bench_function(BenchmarkId::from_parameter(tables), |bencher| {
            bencher.iter(|| catalog.with_delta(&delta).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, apply_delta);
criterion_main!(benches);
