//! Commands of operators: cluster status, nodes, groups, meta members and settings.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{Result, wait};

use super::{check, check_equal, check_fields, json, list};
use crate::support::{SETTLED_WITHIN, wait_for_level};

const MEMBER: [&str; 4] = ["node_id", "address", "voter", "leader"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_commands_return_stable_json() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 3, 1).start().await?;
    status(&cluster).await?;
    nodes(&cluster).await?;
    groups(&cluster).await?;
    settings(&cluster).await?;
    members(&mut cluster).await?;
    cluster.finish().await
}

async fn status(cluster: &Cluster) -> Result<()> {
    let status = json(cluster, &["cluster", "status"]).await?;
    check_fields(&status, &["cluster_id", "catalog_version", "leader", "healthy", "problems"])?;
    check_equal("problems", status["problems"].clone(), Value::Array(Vec::new()))?;
    check_equal(
        "health",
        json(cluster, &["cluster", "health"]).await?["healthy"].as_bool(),
        Some(true),
    )?;
    let text = cluster.run(&["cluster", "status"]).await?.ok()?.stdout;
    check("the status is printed as healthy", text.contains("health   healthy"))
}

async fn nodes(cluster: &Cluster) -> Result<()> {
    let nodes = list(cluster, &["node", "list"], &["node_id", "role", "address", "state"]).await?;
    let of_role = |role: &str| nodes.iter().filter(|node| node["role"] == role).count();
    check_equal("nodes", (of_role("meta"), of_role("data"), of_role("compactor")), (3, 3, 1))?;
    check("all are up", nodes.iter().all(|node| node["state"] == "up"))?;
    for node in &nodes {
        let id = node["node_id"].to_string();
        let output = json(cluster, &["node", "log-level", &id, "debug"]).await?;
        let before = output["previous"].as_str().unwrap_or_default().to_owned();
        let output = json(cluster, &["node", "log-level", &id, &before]).await?;
        check_equal("the filter before", output["previous"].as_str(), Some("debug"))?;
    }
    Ok(())
}

async fn groups(cluster: &Cluster) -> Result<()> {
    let fields = ["group_id", "leader", "voters", "learners"];
    let groups = wait::until("every group is active", SETTLED_WITHIN, || async {
        let groups = list(cluster, &["group", "list"], &fields).await;
        let groups = groups.map_err(|error| error.to_string())?;
        let active = groups.iter().all(|group| group["state"] == "active" && group["leader"] != 0);
        if active && groups.len() > 1 { Ok(groups) } else { Err(format!("{groups:?}")) }
    })
    .await?;
    check_equal("the meta group is the first", groups[0]["group_id"].as_u64(), Some(0))?;
    for group in &groups {
        let id = group["group_id"].to_string();
        let voters: Vec<u64> =
            group["voters"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        check_equal("voters", voters.len(), 3)?;
        let leader = group["leader"].as_u64();
        let other = voters.into_iter().find(|voter| Some(*voter) != leader).unwrap_or_default();
        let to = other.to_string();
        let output = json(cluster, &["group", "transfer-leader", &id, "--to", &to]).await?;
        check_equal("the new leader", output["leader"].as_u64(), Some(other))?;
        wait::until("the new leader is listed", SETTLED_WITHIN, || async {
            let groups = list(cluster, &["group", "list"], &fields).await;
            let groups = groups.map_err(|error| error.to_string())?;
            let now = groups.iter().find(|now| now["group_id"] == group["group_id"]);
            match now.and_then(|group| group["leader"].as_u64()) {
                Some(leader) if leader == other => Ok(()),
                leader => Err(format!("{leader:?}")),
            }
        })
        .await?;
    }
    Ok(())
}

async fn settings(cluster: &Cluster) -> Result<()> {
    for role in ["standalone", "meta", "data", "compactor", "client"] {
        let show = ["config", "show", role, "--output", "json"];
        let output = cluster.run_bare(&show).await?.ok()?.json()?;
        output
            .as_array()
            .into_iter()
            .flatten()
            .try_for_each(|setting| check_fields(setting, &["name", "value", "source"]))?;
        check("there are settings", output.as_array().is_some_and(|settings| settings.len() > 2))?;
    }
    let show = ["config", "show", "data", "--output", "json", "--", "--memory-limit", "2GiB"];
    let output = cluster.run_bare(&show).await?.ok()?.json()?;
    let limit =
        output.as_array().into_iter().flatten().find(|setting| setting["name"] == "memory-limit");
    let limit = limit.map(|setting| (setting["value"].as_str(), setting["source"].as_str()));
    check_equal("the setting", limit, Some((Some("2GiB"), Some("option"))))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = cluster.run_bare(&["completions", shell]).await?.ok()?.stdout;
        check("the script calls the command", script.contains("TIDEWATER_COMPLETE"))?;
    }
    Ok(())
}

/// Returns a meta node outside the plan, which waits to be added.
pub(crate) fn extra_meta(cluster: &Cluster, id: u64) -> Result<Node> {
    let like = &cluster.meta[0].spec;
    let address = cluster.spare_address()?.to_string();
    let mut peers: Vec<String> = (1..)
        .zip(&cluster.meta)
        .map(|(id, node)| format!("{id}={}", node.spec.advertise))
        .collect();
    peers.truncate(1);
    peers.push(format!("{id}={address}"));
    let dir = cluster.directory().join(format!("meta-{id}")).display().to_string();
    let args = [
        "meta",
        "--node-id",
        &id.to_string(),
        "--listen",
        &address,
        "--data-dir",
        &dir,
        "--peers",
        &peers.join(","),
    ];
    let mut node = cluster.extra(&format!("meta-{id}"), like, args.map(str::to_owned).to_vec());
    node.spec.advertise = address.parse().expect("a valid address");
    node.spec.listen = node.spec.advertise;
    Ok(node)
}

async fn members(cluster: &mut Cluster) -> Result<()> {
    let ids = |members: &[Value], voter: bool| -> Vec<u64> {
        let found = members.iter().filter(|member| member["voter"] == voter);
        found.filter_map(|member| member["node_id"].as_u64()).collect()
    };
    let members = list(cluster, &["meta-member", "list"], &MEMBER).await?;
    check_equal("voters", ids(&members, true), vec![1, 2, 3])?;

    // Add and promote a member.
    let mut fourth = extra_meta(cluster, 4)?;
    fourth.spawn()?;
    let address = fourth.spec.advertise.to_string();
    let add = ["meta-member", "add", "4", "--address", &address];
    let members = list(cluster, &add, &MEMBER).await?;
    check_equal("learners", ids(&members, false), vec![4])?;
    fourth.wait_until_ready(SETTLED_WITHIN).await?;
    cluster.run(&add).await?.status(4)?.expect_stderr(&["already"])?;
    let members = list(cluster, &["meta-member", "promote", "4"], &MEMBER).await?;
    check_equal("voters", ids(&members, true), vec![1, 2, 3, 4])?;

    // Remove a member.
    cluster.run(&["group", "transfer-leader", "0", "--to", "1"]).await?.ok()?;
    cluster
        .run(&["meta-member", "remove", "1"])
        .await?
        .status(2)?
        .expect_stderr(&["leads", "transfer"])?;
    let members = list(cluster, &["meta-member", "remove", "3"], &MEMBER).await?;
    check_equal("voters", ids(&members, true), vec![1, 2, 4])?;
    cluster.meta[2].terminate().await?;

    // Replace a member.
    wait_for_level(cluster).await?;
    let mut fifth = extra_meta(cluster, 5)?;
    fifth.spawn()?;
    let address = fifth.spec.advertise.to_string();
    let replace = ["meta-member", "replace", "2", "--with", "5", "--address", &address];
    let members = list(cluster, &replace, &MEMBER).await?;
    check_equal("members", (ids(&members, true), ids(&members, false)), (vec![1, 4, 5], vec![]))?;
    fifth.wait_until_ready(SETTLED_WITHIN).await?;
    // A second replacement has nothing to do.
    list(cluster, &replace, &MEMBER).await?;
    cluster.meta[1].terminate().await?;

    // Only the new members and member 1 are left.
    cluster.run(&["group", "transfer-leader", "0", "--to", "5"]).await?.ok()?;
    cluster.wait_until_healthy().await?;
    let create = ["table", "create", "t", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    for node in [&mut fourth, &mut fifth] {
        check("no panic", !node.log().text()?.contains("panicked at"))?;
    }
    // Data nodes must stop while the meta group still answers.
    for node in &mut cluster.data {
        node.terminate().await?;
    }
    fourth.terminate().await?;
    fifth.terminate().await
}
