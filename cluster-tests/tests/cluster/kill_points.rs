//! Kill points of procedures: in each step of each kind, the meta leader, the leader of the groups or the caller is
//! killed. The procedure ends once, and the table has the state of its end.

use serde_json::Value;
use tidewater_client::catalog::RouteEngine;
use tidewater_client::{Client, ClientError};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, Store};
use tidewater_cluster_tests::command::{self, CommandOutput};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tidewater_common::ids::GroupId;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::reserved;
use crate::support::{SETTLED_WITHIN, keep_routes, setting, wait_for_level};

/// Rows of a table when its procedure begins.
const ROWS: u64 = 200;
/// Rows that a load adds.
const LOADED: u64 = 50;
const REGIONS: &str = "6";
/// Data groups of the cluster.
const GROUPS: u64 = 3;

/// Process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    MetaLeader,
    GroupLeader,
    Caller,
}

/// Holds a procedure in its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Two of three data nodes are frozen: no group has a quorum.
    Quorum,
    /// The object store takes no manifest deltas.
    Manifests,
    /// The object store takes no data files.
    Files,
    /// The object store takes nothing of the first region that the procedure creates.
    Child,
    /// The object store has taken the beginning of that region, and takes nothing of the first region any more.
    Parent,
}

/// A step of a kind of procedure.
#[derive(Debug, Clone, Copy)]
struct Step {
    kind: &'static str,
    step: u64,
    hold: Hold,
}

const STEPS: [Step; 18] = [
    Step { kind: "create", step: 1, hold: Hold::Quorum },
    Step { kind: "open", step: 1, hold: Hold::Quorum },
    Step { kind: "truncate", step: 1, hold: Hold::Manifests },
    Step { kind: "alter", step: 1, hold: Hold::Quorum },
    Step { kind: "alter", step: 2, hold: Hold::Manifests },
    Step { kind: "clone", step: 1, hold: Hold::Manifests },
    Step { kind: "load", step: 1, hold: Hold::Manifests },
    Step { kind: "load", step: 2, hold: Hold::Files },
    Step { kind: "split", step: 1, hold: Hold::Manifests },
    Step { kind: "split", step: 2, hold: Hold::Child },
    Step { kind: "split", step: 4, hold: Hold::Parent },
    Step { kind: "merge", step: 1, hold: Hold::Manifests },
    Step { kind: "merge", step: 2, hold: Hold::Manifests },
    Step { kind: "merge", step: 3, hold: Hold::Child },
    Step { kind: "merge", step: 5, hold: Hold::Parent },
    Step { kind: "move", step: 1, hold: Hold::Manifests },
    Step { kind: "move", step: 4, hold: Hold::Manifests },
    Step { kind: "drop", step: 1, hold: Hold::Manifests },
];
const VICTIMS: [Victim; 3] = [Victim::MetaLeader, Victim::GroupLeader, Victim::Caller];

fn args(kind: &str, table: &str) -> Vec<String> {
    let copy = format!("{table}-copy");
    let args: &[&str] = match kind {
        "create" => &[
            "table",
            "create",
            table,
            "--columns",
            "id int64, name utf8",
            "--primary-key",
            "id",
            "--distribute",
            "hash(id)",
            "--regions",
            REGIONS,
        ],
        "open" => &["table", "open", table],
        "truncate" => &["table", "truncate", table],
        "alter" => &["table", "alter", table, "--add-column", "n int64 not null default 7"],
        "clone" => &["table", "clone", table, &copy],
        "load" => &["load", table, "", "--atomic"],
        "split" => &["route", "split", "", "--at", ""],
        "merge" => &["route", "merge", "", ""],
        "move" => &["route", "move", "", "--to", ""],
        _ => &["table", "drop", table],
    };
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn csv(from: u64, rows: u64) -> String {
    let lines: String = (from..from + rows).map(|id| format!("{id},name {id}\n")).collect();
    format!("id,name\n{lines}")
}

/// Starts the command of a procedure.
async fn call(
    cluster: &Cluster,
    kind: &str,
    table: &str,
) -> Result<JoinHandle<Result<CommandOutput>>> {
    let mut args = args(kind, table);
    match kind {
        "load" => args[2] = write_csv(cluster, &format!("{table}-more"), ROWS, LOADED)?,
        "split" => {
            let [route, _] = first_routes(cluster, table).await?;
            args[2] = route["route_id"].to_string();
            // The next possible key after the first one of the route.
            args[4] = format!("{}00", route["start"].as_str().unwrap_or_default());
        }
        "move" => {
            let [route, _] = first_routes(cluster, table).await?;
            args[2] = route["route_id"].to_string();
            let group = route["group_id"].as_u64().unwrap_or_default();
            args[4] = (group % GROUPS + 1).to_string();
        }
        "merge" => {
            let routes = first_routes(cluster, table).await?;
            args.splice(2.., routes.map(|route| route["route_id"].to_string()));
        }
        _ => {}
    }
    args.extend(["--meta".to_owned(), cluster.meta_addresses().join(",")]);
    let binary = binary::tidewater()?;
    Ok(tokio::spawn(async move {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        command::run(&binary, &args, &[]).await
    }))
}

/// Returns the first two routes of the table.
async fn first_routes(cluster: &Cluster, table: &str) -> Result<[Value; 2]> {
    let list = ["route", "list", "--table", table, "--output", "json"];
    let routes = cluster.run(&list).await?.ok()?.json()?;
    Ok([routes[0].clone(), routes[1].clone()])
}

/// Splits the first route of a table: its children are in one group, and can be merged. For the first step of a
/// merge, they have rows in memory.
async fn prepare_merge(cluster: &Cluster, table: &str, step: u64) -> Result<()> {
    call(cluster, "split", table)
        .await?
        .await
        .map_err(|error| HarnessError::violated(error.to_string()))??
        .ok()?;
    if step == 1 {
        let file = write_csv(cluster, table, 0, ROWS)?;
        cluster.run(&["load", table, &file]).await?.ok()?;
    } else {
        cluster.flush(table).await?.ok()?;
    }
    Ok(())
}

/// Reserves a table and saves its routes.
async fn reserve(cluster: &Cluster, table: &str) -> Result<()> {
    let failed = |error: ClientError| HarnessError::violated(error.to_string());
    let client = Client::connect(options(cluster)).await.map_err(failed)?;
    let engine = RouteEngine::with_default_route(GroupId(1));
    let engine = engine.map_err(|error| HarnessError::violated(error.to_string()))?;
    let store = client.catalog_store();
    let id = store.reserve(reserved::definition(table)).await.map_err(failed)?;
    let routes = engine.routes_of_table(id);
    let routes = routes.map_err(|error| HarnessError::violated(error.to_string()))?;
    let version = store.version().await.map_err(failed)?;
    store.save(version, id, &routes).await.map_err(failed).map(drop)
}

/// Writes rows to a file, and returns its path.
fn write_csv(cluster: &Cluster, name: &str, from: u64, rows: u64) -> Result<String> {
    let file = cluster.directory().join(format!("{name}.csv"));
    std::fs::write(&file, csv(from, rows)).map_err(HarnessError::io("a csv file"))?;
    Ok(file.display().to_string())
}

/// Creates a table with rows. None of them is in files.
async fn create_filled(cluster: &Cluster, table: &str) -> Result<()> {
    let create = args("create", table);
    cluster.run(&create.iter().map(String::as_str).collect::<Vec<_>>()).await?.ok()?;
    let file = write_csv(cluster, table, 0, ROWS)?;
    cluster.run(&["load", table, &file]).await?.ok()?;
    Ok(())
}

/// Returns the procedures of a kind, of the table or its copy.
async fn procedures(cluster: &Cluster, kind: &str, table: &str) -> Result<Vec<Value>> {
    let list = cluster.run(&["procedure", "list", "--output", "json"]).await?.ok()?.json()?;
    let of = |procedure: &&Value| {
        let name = procedure["table"].as_str().unwrap_or_default();
        procedure["kind"] == kind && name.trim_end_matches("-copy") == table
    };
    Ok(list.as_array().into_iter().flatten().filter(of).cloned().collect())
}

/// Waits until the only procedure of the kind satisfies a condition.
async fn wait_for(
    cluster: &Cluster,
    (kind, table): (&str, &str),
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait::until(&format!("{kind} of {table} {what}"), SETTLED_WITHIN, || async {
        let found = procedures(cluster, kind, table).await.map_err(|error| error.to_string())?;
        match &found[..] {
            [procedure] if is_so(procedure) => Ok(procedure.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Waits until the child of a split or merge is held, and holds the first region that it replaces instead.
async fn pass_child(cluster: &Cluster, table: &str) -> Result<()> {
    wait_until_held(cluster, Hold::Child).await?;
    let s3 = cluster.s3.as_ref().ok_or_else(|| HarnessError::violated("no S3 endpoint"))?;
    let [parent, _] = first_routes(cluster, table).await?;
    let path = format!("r{}-", parent["route_id"]);
    s3.inject(Fault::new(Mode::Hold).on_puts().on_path(path)).await
}

async fn hold(cluster: &Cluster, hold: Hold, signal: Signal) -> Result<()> {
    let s3 = cluster.s3.as_ref().ok_or_else(|| HarnessError::violated("no S3 endpoint"))?;
    match (hold, signal) {
        (Hold::Quorum, _) => {
            for node in &cluster.data[..2] {
                node.signal(signal).await?;
            }
            Ok(())
        }
        (Hold::Manifests, Signal::Stop) => {
            s3.inject(Fault::new(Mode::Hold).on_puts().on_path(".delta")).await
        }
        (Hold::Files, Signal::Stop) => {
            s3.inject(Fault::new(Mode::Hold).on_puts().on_path(".parquet")).await
        }
        (Hold::Child | Hold::Parent, Signal::Stop) => {
            let path = format!("r{}-", cluster.catalog().await?.next_route_id);
            s3.inject(Fault::new(Mode::Hold).on_puts().on_path(path)).await
        }
        (Hold::Manifests | Hold::Files | Hold::Child | Hold::Parent, _) => s3.heal().await,
    }
}

/// Waits until a request is held; for nodes that are frozen, the time in which a step would end that is not held.
async fn wait_until_held(cluster: &Cluster, hold: Hold) -> Result<()> {
    let Some(s3) = cluster.s3.as_ref().filter(|_| hold != Hold::Quorum) else {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        return Ok(());
    };
    wait::until("the store holds a put", SETTLED_WITHIN, || async {
        let hits = s3.hits().await.map_err(|error| error.to_string())?;
        if hits > 0 { Ok(()) } else { Err("no put was held".to_owned()) }
    })
    .await
}

/// Kills the victim. A node is started again.
async fn kill(
    cluster: &mut Cluster,
    (step, victim, table): (Step, Victim, &str),
    caller: &JoinHandle<Result<CommandOutput>>,
) -> Result<()> {
    match victim {
        Victim::MetaLeader => {
            let (leader, _) = cluster.meta_leader().await?;
            cluster.meta[leader].kill().await?;
            cluster.meta[leader].start().await
        }
        Victim::GroupLeader => {
            let leader = match (step.kind, step.hold) {
                // No node leads, or the table is in no group any more: one of its replicas.
                ("create" | "open" | "drop", _) | (_, Hold::Quorum) => 0,
                _ => cluster.owner(table).await?,
            };
            cluster.data[leader].kill().await?;
            cluster.data[leader].start().await
        }
        Victim::Caller => {
            caller.abort();
            Ok(())
        }
    }
}

/// Checks the state of the table after the end of the procedure.
async fn check(cluster: &Cluster, step: Step, table: &str, state: &str) -> Result<()> {
    let completed = state == "completed";
    let name = if step.kind == "clone" { format!("{table}-copy") } else { table.to_owned() };
    let expected = match (step.kind, completed) {
        ("drop", true) => {
            cluster.run(&["table", "describe", &name]).await?.status(3)?;
            return Ok(());
        }
        ("create" | "open" | "truncate", true) => 0,
        ("load", true) => ROWS + LOADED,
        _ => ROWS,
    };
    let found = cluster.count(&name).await?;
    if found != expected {
        let text = format!("{step:?} of {name} is {state}: {found} rows, expected {expected}");
        return Err(HarnessError::violated(text));
    }
    if step.kind == "alter" && cluster.count_where(&name, Some("n = 7")).await? != ROWS {
        return Err(HarnessError::violated(format!("{step:?} of {name} has no new column")));
    }
    Ok(())
}

/// Begins a procedure, holds it in a step, kills the victim, and lets the procedure continue.
async fn kill_in_step(
    cluster: &mut Cluster,
    step: Step,
    victim: Victim,
    table: &str,
) -> Result<()> {
    match step.kind {
        "create" => {}
        "open" => reserve(cluster, table).await?,
        _ => create_filled(cluster, table).await?,
    }
    if step.kind == "merge" {
        prepare_merge(cluster, table, step.step).await?;
    }
    if (step.kind, step.step) == ("move", 4) {
        // The steps before have nothing to flush.
        cluster.flush(table).await?.ok()?;
    }
    hold(cluster, step.hold, Signal::Stop).await?;
    let caller = call(cluster, step.kind, table).await?;
    if step.hold == Hold::Parent {
        pass_child(cluster, table).await?;
    }
    let at = (step.kind, table);
    let is_held = |procedure: &Value| procedure["step"] == step.step;
    wait_for(cluster, at, "is in its step", is_held).await?;
    wait_until_held(cluster, step.hold).await?;
    let held = wait_for(cluster, at, "is held in its step", is_held).await?;
    if held["state"] != "running" {
        return Err(HarnessError::violated(format!("{step:?} is not held: {held}")));
    }
    kill(cluster, (step, victim, table), &caller).await?;
    hold(cluster, step.hold, Signal::Continue).await?;
    // A load waits for its loader until its deadline, or is cancelled.
    let is_cancelled = step.kind == "load" && victim == Victim::Caller;
    if is_cancelled {
        let id = held["procedure_id"].as_str().unwrap_or_default();
        cluster.run(&["procedure", "cancel", id]).await?.ok()?;
    }
    // A fence ends by itself while the victim starts on a slow machine.
    let may_lapse = [("merge", 2), ("move", 4)].contains(&(step.kind, step.step));
    let ended =
        wait_for(cluster, at, "has ended", |procedure| procedure["ended_ms"] != Value::Null)
            .await?;
    let lapsed = may_lapse && ended["cause"] == "superseded";
    let expected = if is_cancelled || lapsed { "abandoned" } else { "completed" };
    if ended["state"] != expected || ended["procedure_id"] != held["procedure_id"] {
        return Err(HarnessError::violated(format!("{step:?}, {victim:?}: {ended}")));
    }
    if victim != Victim::Caller {
        let output = caller.await.map_err(|error| HarnessError::violated(error.to_string()))??;
        if !lapsed {
            output.ok()?;
        }
    }
    check(cluster, step, table, expected).await
}

/// CI runs each step with one victim; `TIDEWATER_KILL_POINTS=54` runs each with all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn procedures_end_once_when_processes_are_killed() -> Result<()> {
    let points = setting("TIDEWATER_KILL_POINTS", STEPS.len());
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    for number in 0..points {
        let step = STEPS[number % STEPS.len()];
        let victim = VICTIMS[(number % STEPS.len() + number / STEPS.len()) % VICTIMS.len()];
        let begun = Instant::now();
        kill_in_step(&mut cluster, step, victim, &format!("t{number}")).await?;
        println!("{step:?}, {victim:?}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
