//! Measures a meta group of three real processes with stub data nodes, watchers and writers.
//!
//! Usage: `meta_scale [NAME=VALUE ...]`; `options.rs` lists the names. `scripts/bench meta-scale` runs it on
//! a release build. A scenario that fails is reported with its error, and the next one begins. Prints a
//! table, and the same figures as JSON on the last line.

mod barriers;
mod failures;
mod growth;
mod load;
mod mirror;
mod options;
mod report;
mod scene;

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::stub::raise_limit;

use options::Options;
use report::Report;
use scene::Scene;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    raise_limit().await?;
    let mut report = Report::new(&options);
    let mut scene = Scene::start(&options, &mut report).await?;
    let barriers = barriers::measure(&scene, &options, &mut report).await;
    report.check("barriers", barriers);
    let grown = growth::measure(&mut scene, &options, &mut report).await;
    report.check("growth", grown);
    let altered = load::measure_alter(&scene, &options, &mut report).await;
    report.check("alter under load", altered);
    let hooked = load::measure_hooks(&scene, &options, &mut report).await;
    report.check("durable hooks", hooked);
    let lost = failures::measure_rack(&mut scene, &options, &mut report).await;
    report.check("rack lost", lost);
    let failed_over = failures::measure_failover(&mut scene, &options, &mut report).await;
    report.check("failover", failed_over);
    let memory = scene.record_processes("at the end", &mut report).await;
    report.check("at the end", memory);
    println!("{report}");
    println!("{}", report.to_json());
    scene.finish().await
}
