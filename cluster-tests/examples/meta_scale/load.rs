//! An alter under the load of writers, and durable hooks on all tables.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::stub::{StubWriters, WriterCounts};
use tokio::time::Instant;

use crate::options::Options;
use crate::report::Report;
use crate::scene::Scene;

/// Time of writes before and after the alter.
const STEADY: Duration = Duration::from_secs(3);

/// Alters a table while writers write to it.
pub(crate) async fn measure_alter(
    scene: &Scene,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    const SCENARIO: &str = "alter under load";
    let counts =
        WriterCounts { clients: options.clients, writers: options.writers, pause: options.pause };
    scene.calls.create_table("loaded", options.routes).await?;
    let writers = StubWriters::start(&scene.metas, "loaded", counts).await?;
    tokio::time::sleep(STEADY).await;
    writers.restart_figures();
    tokio::time::sleep(STEADY).await;
    let figures = writers.figures();
    let slowest = |name: &str, report: &mut Report| {
        let micros = figures.slowest_micros.load(Ordering::SeqCst);
        report.add_time(SCENARIO, name, Duration::from_micros(micros));
    };
    slowest("slowest write before it", report);
    let fetches = scene.watchers.counters().fetches.load(Ordering::SeqCst);
    let terms = scene.terms_led()?;
    writers.restart_figures();
    let begun = Instant::now();
    scene.calls.add_column("loaded", "added").await?;
    report.add_time(SCENARIO, "alter", begun.elapsed());
    tokio::time::sleep(STEADY).await;
    slowest("slowest write during it", report);
    let failed = figures.failed.load(Ordering::SeqCst);
    report.add(SCENARIO, "failed writes", failed as f64, "");
    let stale = scene.stubs.world().counters.stale_writes.load(Ordering::SeqCst);
    report.add(SCENARIO, "writes with an old schema version", stale as f64, "");
    let later = scene.watchers.counters().fetches.load(Ordering::SeqCst);
    report.add(SCENARIO, "fetches by watchers", later.saturating_sub(fetches) as f64, "");
    let elections = scene.terms_led()?.saturating_sub(terms);
    report.add(SCENARIO, "changes of the meta leader", elections as f64, "");
    Ok(())
}

/// Adds durable hooks on all tables, creates a table with them, and removes them.
pub(crate) async fn measure_hooks(
    scene: &Scene,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    const SCENARIO: &str = "durable hooks";
    let terms = scene.terms_led()?;
    let name = |number: usize| format!("hook{number}");
    for number in 0..options.hooks {
        let path = scene.cluster.hook_directory().join(format!("{}.jsonl", name(number)));
        let begun = Instant::now();
        scene.calls.add_durable_hook(&name(number), &path.display().to_string()).await?;
        report.add_time(SCENARIO, "addition to all tables", begun.elapsed());
    }
    // The leaders of groups move their new cursors within a few lists.
    tokio::time::sleep(STEADY * 2).await;
    let begun = Instant::now();
    scene.calls.create_table("hooked", options.routes).await?;
    report.add_time(SCENARIO, "creation of a table", begun.elapsed());
    scene.record_processes("with hooks", report).await?;
    for number in 0..options.hooks {
        let begun = Instant::now();
        scene.calls.remove_hook(&name(number)).await?;
        report.add_time(SCENARIO, "removal", begun.elapsed());
    }
    let counters = &scene.stubs.world().counters;
    for (name, counter) in [
        ("lists of cursors", &counters.cursor_lists),
        ("lists of cursors that had changed", &counters.changed_cursor_lists),
    ] {
        report.add(SCENARIO, name, counter.load(Ordering::SeqCst) as f64, "");
    }
    let elections = scene.terms_led()?.saturating_sub(terms);
    report.add(SCENARIO, "changes of the meta leader", elections as f64, "");
    scene.settle(options.limit).await
}
