//! Servers that must fail to start with a clear error and change nothing.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::NodeSpec;
use tidewater_cluster_tests::{HarnessError, Result};

const REFUSED_WITHIN: Duration = Duration::from_secs(60);

fn small() -> ClusterPlan {
    ClusterPlan::default().nodes(1, 1, 0)
}

/// Returns the arguments of a node with some flags changed; an empty value removes the flag.
fn with_flags(spec: &NodeSpec, changes: &[(&str, String)]) -> Vec<String> {
    let mut args = spec.args.clone();
    for (flag, value) in changes {
        if let Some(at) = args.iter().position(|argument| argument == flag) {
            args.drain(at..(at + 2).min(args.len()));
        }
        if !value.is_empty() {
            args.extend([(*flag).to_owned(), value.clone()]);
        }
    }
    args
}

// Exit statuses.
const USAGE: i32 = 2;
const CONFLICT: i32 = 4;
const UNAVAILABLE: i32 = 5;

/// Verifies that a failed start has not created a directory.
fn expect_absent(cluster: &Cluster, directory: &str) -> Result<()> {
    let directory = cluster.directory().join(directory);
    if directory.exists() {
        return Err(HarnessError::violated(format!("{} was created", directory.display())));
    }
    Ok(())
}

/// Starts a server that must exit with `status` and a message that contains all `words`.
async fn expect_start_failure(
    cluster: &Cluster,
    like: &NodeSpec,
    args: Vec<String>,
    status: i32,
    words: &[&str],
) -> Result<()> {
    let mut node = cluster.extra("extra", like, args);
    node.spawn()?;
    let exit = node.wait_for_exit(REFUSED_WITHIN).await?;
    let log = node.log().since_start()?;
    let lower = log.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !lower.contains(**word)).collect();
    if exit.code() != Some(status) || !missing.is_empty() || lower.contains("panicked") {
        return Err(HarnessError::violated(format!(
            "the server exited with {exit}, expected {status}, or did not log {missing:?}: {log}"
        )));
    }
    if !node.out().since_start()?.is_empty() {
        return Err(HarnessError::violated("the server printed ready before it failed"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_rejects_directory_or_address_in_use() -> Result<()> {
    let cluster = small().start().await?;
    let meta = cluster.meta[0].spec.clone();
    let data = cluster.data[0].spec.clone();
    let address = cluster.spare_address()?.to_string();
    let other_address = [("--listen", address.clone()), ("--advertise", address)];
    for spec in [&meta, &data] {
        let args = with_flags(spec, &other_address);
        expect_start_failure(&cluster, spec, args, CONFLICT, &["in use by", "--data-dir"]).await?;
    }
    let empty = cluster.directory().join("empty").display().to_string();
    let other_dir = [("--data-dir", empty)];
    let words = ["in use", &data.listen.to_string(), "--listen"];
    expect_start_failure(&cluster, &data, with_flags(&data, &other_dir), CONFLICT, &words).await?;
    expect_absent(&cluster, "empty")?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_rejects_directory_of_other_role_or_newer_format() -> Result<()> {
    let mut cluster = small().start().await?;
    let meta = cluster.meta[0].spec.clone();
    let data = cluster.data[0].spec.clone();
    let directory = data.data_dir.clone().expect("data nodes have a data directory");
    cluster.data[0].terminate().await?;

    let address = cluster.spare_address()?.to_string();
    let args = with_flags(
        &meta,
        &[
            ("--listen", address.clone()),
            ("--advertise", address),
            ("--data-dir", directory.display().to_string()),
        ],
    );
    expect_start_failure(
        &cluster,
        &meta,
        args,
        CONFLICT,
        &["belongs to a data node", "--data-dir"],
    )
    .await?;

    let identity = directory.join("identity");
    let kept = std::fs::read_to_string(&identity).map_err(HarnessError::io("read identity"))?;
    let newer = kept.replacen("\"format\":1", "\"format\":99", 1);
    assert_ne!(newer, kept, "unexpected format of the identity file: {kept}");
    std::fs::write(&identity, newer).map_err(HarnessError::io("write identity"))?;
    expect_start_failure(&cluster, &data, data.args.clone(), CONFLICT, &["format 99", "newer"])
        .await?;

    std::fs::write(&identity, kept).map_err(HarnessError::io("write identity"))?;
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_rejects_directory_of_another_cluster() -> Result<()> {
    let mut cluster = small().start().await?;
    let meta = cluster.meta[0].spec.clone();
    let data = cluster.data[0].spec.clone();
    // A second cluster of one meta node.
    let address = cluster.spare_address()?;
    let mut args = with_flags(
        &meta,
        &[
            ("--listen", address.to_string()),
            ("--advertise", address.to_string()),
            ("--peers", format!("1={address}")),
            ("--data-dir", cluster.directory().join("second").display().to_string()),
        ],
    );
    args.push("--bootstrap".to_owned());
    let mut second = cluster.extra("second-meta", &meta, args);
    second.start().await?;

    cluster.data[0].terminate().await?;
    let args = with_flags(&data, &[("--meta", address.to_string())]);
    expect_start_failure(&cluster, &data, args, CONFLICT, &["belongs to cluster"]).await?;

    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    second.terminate().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_node_rejects_second_bootstrap_and_mismatched_peers() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 1, 0).start().await?;
    let meta = cluster.meta[0].spec.clone();
    cluster.meta[0].terminate().await?;
    let mut again = meta.args.clone();
    again.push("--bootstrap".to_owned());
    expect_start_failure(
        &cluster,
        &meta,
        again,
        CONFLICT,
        &["belongs to cluster", "without --bootstrap"],
    )
    .await?;
    cluster.meta[0].start().await?;

    // A new node whose peer list differs from that of the cluster.
    let address = cluster.spare_address()?;
    let unknown = cluster.spare_address()?;
    let peers = format!("1={},2={unknown},9={address}", meta.advertise);
    let args = with_flags(
        &meta,
        &[
            ("--node-id", "9".to_owned()),
            ("--listen", address.to_string()),
            ("--advertise", address.to_string()),
            ("--peers", peers),
            ("--data-dir", cluster.directory().join("ninth").display().to_string()),
        ],
    );
    expect_start_failure(&cluster, &meta, args, CONFLICT, &["--peers", "the cluster has"]).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_nodes_reject_conflicting_bootstrap_flags_and_peer_lists() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(2, 0, 0).prepare().await?;
    let first = cluster.meta[0].spec.clone();
    let second = cluster.meta[1].spec.clone();
    let peers = format!("1={},2={}", first.advertise, second.advertise);

    let more = format!("{peers},3={}", cluster.spare_address()?);
    let mut other =
        cluster.extra("other-peers", &second, with_flags(&second, &[("--peers", more)]));
    other.spawn()?;
    expect_start_failure(&cluster, &first, first.args.clone(), CONFLICT, &["--peers"]).await?;
    other.terminate().await?;

    let mut also = second.args.clone();
    also.push("--bootstrap".to_owned());
    let mut one = cluster.extra("first-bootstrap", &first, first.args.clone());
    let mut two = cluster.extra("second-bootstrap", &second, also);
    one.spawn()?;
    two.spawn()?;
    // The node that is called first rejects the other one, and may exit before it calls the other.
    let (exit, log) = tokio::select! {
        exit = one.wait_for_exit(REFUSED_WITHIN) => (exit?, one.log()),
        exit = two.wait_for_exit(REFUSED_WITHIN) => (exit?, two.log()),
    };
    let log = log.text()?;
    if exit.code() != Some(CONFLICT) || !log.contains("also started with --bootstrap") {
        return Err(HarnessError::violated(format!("the node exited with {exit}: {log}")));
    }
    one.kill().await?;
    two.kill().await?;

    let twice = format!("{peers},1={}", second.advertise);
    let args = with_flags(&first, &[("--peers", twice)]);
    expect_start_failure(&cluster, &first, args, USAGE, &["--peers", "node 1 twice"]).await?;
    let args = with_flags(&first, &[("--node-id", "7".to_owned())]);
    expect_start_failure(&cluster, &first, args, USAGE, &["--peers does not name this node"])
        .await?;

    // None of the failed starts prevents the cluster from starting.
    cluster.meta[0].spec.args = first.args;
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_rejects_unusable_object_store() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 1).start().await?;
    let compactor = cluster.compactors[0].spec.clone();
    let data = cluster.data[0].spec.clone();
    let file = cluster.directory().join("a-file");
    std::fs::write(&file, "not a directory").map_err(HarnessError::io("write a file"))?;
    let below_a_file = format!("file://{}/objects", file.display());
    let cases = [
        ("nonsense://somewhere".to_owned(), USAGE, "nonsense"),
        ("not a url".to_owned(), USAGE, "not a url"),
        ("file://relative/dir".to_owned(), USAGE, "absolute"),
        ("s3://".to_owned(), USAGE, "bucket"),
        (below_a_file, UNAVAILABLE, "a-file"),
    ];
    for (url, status, word) in cases {
        if status == USAGE {
            let address = cluster.spare_address()?.to_string();
            let changes = [("--listen", address), ("--object-store", url.clone())];
            let args = with_flags(&compactor, &changes);
            expect_start_failure(&cluster, &compactor, args, status, &[word, "--object-store"])
                .await?;
        }
        let address = cluster.spare_address()?.to_string();
        let args = with_flags(
            &data,
            &[
                ("--listen", address.clone()),
                ("--advertise", address),
                ("--object-store", url),
                ("--data-dir", cluster.directory().join("unused").display().to_string()),
            ],
        );
        expect_start_failure(&cluster, &data, args, status, &[word, "--object-store"]).await?;
        expect_absent(&cluster, "unused")?;
    }
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_error_lists_unreachable_meta_addresses() -> Result<()> {
    let cluster = small().prepare().await?;
    let addresses = [cluster.spare_address()?.to_string(), cluster.spare_address()?.to_string()];
    cluster
        .run_bare(&["cluster", "status", "--meta", &addresses.join(",")])
        .await?
        .status(5)?
        .expect_stderr(&[&addresses[0], &addresses[1]])?;
    cluster.finish().await
}
