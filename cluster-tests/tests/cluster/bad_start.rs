//! Servers that must refuse to start, say why, and leave everything as it was.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, Plan};
use tidewater_cluster_tests::node::NodeSpec;
use tidewater_cluster_tests::{HarnessError, Result};

const REFUSED_WITHIN: Duration = Duration::from_secs(60);

fn small() -> Plan {
    Plan::default().nodes(1, 1, 0)
}

/// The arguments of a node with some of its flags changed; an empty value removes the flag.
fn with(spec: &NodeSpec, changes: &[(&str, String)]) -> Vec<String> {
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

/// Exit statuses of operations.md.
const USAGE: i32 = 2;
const CONFLICT: i32 = 4;
const UNAVAILABLE: i32 = 5;

/// A start that was refused must not leave a folder behind.
fn untouched(cluster: &Cluster, folder: &str) -> Result<()> {
    let folder = cluster.folder().join(folder);
    if folder.exists() {
        return Err(HarnessError::violated(format!("{} was made", folder.display())));
    }
    Ok(())
}

/// Starts a server that must end by itself, with `status` and a message that has all of `words`.
async fn refused(
    cluster: &Cluster,
    like: &NodeSpec,
    args: Vec<String>,
    status: i32,
    words: &[&str],
) -> Result<()> {
    let mut node = cluster.extra("extra", like, args);
    node.spawn()?;
    let ended = node.ended(REFUSED_WITHIN).await?;
    let said = node.log().since_start()?;
    let lower = said.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !lower.contains(**word)).collect();
    if ended.code() != Some(status) || !missing.is_empty() || lower.contains("panicked") {
        return Err(HarnessError::violated(format!(
            "it ended with {ended}, not {status}, or did not say {missing:?}: {said}"
        )));
    }
    if !node.out().since_start()?.is_empty() {
        return Err(HarnessError::violated("it said ready before it was refused"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_directory_or_address_in_use() -> Result<()> {
    let cluster = small().start().await?;
    let (meta, data) = (cluster.meta[0].spec.clone(), cluster.data[0].spec.clone());
    let elsewhere = cluster.spare_address()?.to_string();
    let other_place = [("--listen", elsewhere.clone()), ("--advertise", elsewhere)];
    for spec in [&meta, &data] {
        refused(&cluster, spec, with(spec, &other_place), CONFLICT, &["in use by", "--data-dir"])
            .await?;
    }
    let empty = cluster.folder().join("empty").display().to_string();
    let other_folder = [("--data-dir", empty)];
    let words = ["in use", &data.listen.to_string(), "--listen"];
    refused(&cluster, &data, with(&data, &other_folder), CONFLICT, &words).await?;
    untouched(&cluster, "empty")?;
    cluster.healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_directory_of_another_role_or_a_newer_format() -> Result<()> {
    let mut cluster = small().start().await?;
    let (meta, data) = (cluster.meta[0].spec.clone(), cluster.data[0].spec.clone());
    let folder = data.data_dir.clone().expect("data nodes have one");
    cluster.data[0].terminate().await?;

    let elsewhere = cluster.spare_address()?.to_string();
    let args = with(
        &meta,
        &[
            ("--listen", elsewhere.clone()),
            ("--advertise", elsewhere),
            ("--data-dir", folder.display().to_string()),
        ],
    );
    refused(&cluster, &meta, args, CONFLICT, &["belongs to a data node", "--data-dir"]).await?;

    let identity = folder.join("identity");
    let kept = std::fs::read_to_string(&identity).map_err(HarnessError::io("read identity"))?;
    let newer = kept.replacen("\"format\":1", "\"format\":99", 1);
    assert_ne!(newer, kept, "the identity has another form: {kept}");
    std::fs::write(&identity, newer).map_err(HarnessError::io("write identity"))?;
    refused(&cluster, &data, data.args.clone(), CONFLICT, &["format 99", "newer"]).await?;

    std::fs::write(&identity, kept).map_err(HarnessError::io("write identity"))?;
    cluster.data[0].start().await?;
    cluster.healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_directory_of_another_cluster() -> Result<()> {
    let mut cluster = small().start().await?;
    let (meta, data) = (cluster.meta[0].spec.clone(), cluster.data[0].spec.clone());
    // A second cluster of one meta node, beside the first.
    let address = cluster.spare_address()?;
    let mut args = with(
        &meta,
        &[
            ("--listen", address.to_string()),
            ("--advertise", address.to_string()),
            ("--peers", format!("1={address}")),
            ("--data-dir", cluster.folder().join("second").display().to_string()),
        ],
    );
    args.push("--bootstrap".to_owned());
    let mut second = cluster.extra("second-meta", &meta, args);
    second.start().await?;

    cluster.data[0].terminate().await?;
    let args = with(&data, &[("--meta", address.to_string())]);
    refused(&cluster, &data, args, CONFLICT, &["belongs to cluster"]).await?;

    cluster.data[0].start().await?;
    cluster.healthy().await?;
    second.terminate().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_time_with_bootstrap_or_other_peers() -> Result<()> {
    let mut cluster = Plan::default().nodes(3, 1, 0).start().await?;
    let meta = cluster.meta[0].spec.clone();
    cluster.meta[0].terminate().await?;
    let mut again = meta.args.clone();
    again.push("--bootstrap".to_owned());
    refused(&cluster, &meta, again, CONFLICT, &["belongs to cluster", "without --bootstrap"])
        .await?;
    cluster.meta[0].start().await?;

    // A new node whose peer list is not the cluster's.
    let address = cluster.spare_address()?;
    let elsewhere = cluster.spare_address()?;
    let peers = format!("1={},2={elsewhere},9={address}", meta.advertise);
    let args = with(
        &meta,
        &[
            ("--node-id", "9".to_owned()),
            ("--listen", address.to_string()),
            ("--advertise", address.to_string()),
            ("--peers", peers),
            ("--data-dir", cluster.folder().join("ninth").display().to_string()),
        ],
    );
    refused(&cluster, &meta, args, CONFLICT, &["--peers", "the cluster has"]).await?;
    cluster.healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_bootstrap_or_do_not_agree_on_their_peers() -> Result<()> {
    let mut cluster = Plan::default().nodes(2, 0, 0).prepare().await?;
    let (first, second) = (cluster.meta[0].spec.clone(), cluster.meta[1].spec.clone());
    let peers = format!("1={},2={}", first.advertise, second.advertise);

    let more = format!("{peers},3={}", cluster.spare_address()?);
    let mut other = cluster.extra("other-peers", &second, with(&second, &[("--peers", more)]));
    other.spawn()?;
    refused(&cluster, &first, first.args.clone(), CONFLICT, &["--peers"]).await?;
    other.terminate().await?;

    let mut also = second.args.clone();
    also.push("--bootstrap".to_owned());
    let mut one = cluster.extra("first-bootstrap", &first, first.args.clone());
    let mut two = cluster.extra("second-bootstrap", &second, also);
    one.spawn()?;
    two.spawn()?;
    // Who is asked first refuses the other, and may be gone before it has asked itself.
    let (ended, log) = tokio::select! {
        ended = one.ended(REFUSED_WITHIN) => (ended?, one.log()),
        ended = two.ended(REFUSED_WITHIN) => (ended?, two.log()),
    };
    let said = log.text()?;
    if ended.code() != Some(CONFLICT) || !said.contains("also started with --bootstrap") {
        return Err(HarnessError::violated(format!("it ended with {ended}: {said}")));
    }
    one.kill().await?;
    two.kill().await?;

    let twice = format!("{peers},1={}", second.advertise);
    let args = with(&first, &[("--peers", twice)]);
    refused(&cluster, &first, args, USAGE, &["--peers", "node 1 twice"]).await?;
    let args = with(&first, &[("--node-id", "7".to_owned())]);
    refused(&cluster, &first, args, USAGE, &["--peers does not name this node"]).await?;

    // Nothing of all that is in their way now.
    cluster.meta[0].spec.args = first.args;
    cluster.start_all().await?;
    cluster.healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_an_object_store_that_cannot_be_used() -> Result<()> {
    let cluster = Plan::default().nodes(1, 1, 1).start().await?;
    let compactor = cluster.compactors[0].spec.clone();
    let data = cluster.data[0].spec.clone();
    let file = cluster.folder().join("a-file");
    std::fs::write(&file, "in the way").map_err(HarnessError::io("write a file"))?;
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
            let args = with(&compactor, &changes);
            refused(&cluster, &compactor, args, status, &[word, "--object-store"]).await?;
        }
        let address = cluster.spare_address()?.to_string();
        let args = with(
            &data,
            &[
                ("--listen", address.clone()),
                ("--advertise", address),
                ("--object-store", url),
                ("--data-dir", cluster.folder().join("unused").display().to_string()),
            ],
        );
        refused(&cluster, &data, args, status, &[word, "--object-store"]).await?;
        untouched(&cluster, "unused")?;
    }
    cluster.healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_client_without_meta_nodes_names_the_addresses() -> Result<()> {
    let cluster = small().prepare().await?;
    let addresses = [cluster.spare_address()?.to_string(), cluster.spare_address()?.to_string()];
    cluster
        .run_bare(&["cluster", "status", "--meta", &addresses.join(",")])
        .await?
        .status(5)?
        .complains(&[&addresses[0], &addresses[1]])?;
    cluster.finish().await
}
