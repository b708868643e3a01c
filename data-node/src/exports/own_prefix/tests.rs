//! Targets and own prefixes by their URLs and endpoints.

use serde_json::json;

use super::*;

/// Prefix of a store at a server, which this variable of the environment names.
fn own(url: &str, variable: &str, endpoint: Option<&str>) -> OwnPrefix {
    OwnPrefix::new(url, |name| endpoint.filter(|_| name == variable).map(str::to_owned))
}

fn target(url: &str, endpoint: Option<&str>) -> Value {
    match endpoint {
        Some(endpoint) => json!({ "url": url, "endpoint": endpoint }),
        None => json!({ "url": url }),
    }
}

fn is_refused(own: &OwnPrefix, url: &str, endpoint: Option<&str>) -> bool {
    own.check(&target(url, endpoint)).is_err()
}

#[test]
fn paths_are_compared_by_whole_segments() {
    let own = own("s3://bucket/a/data", "AWS_ENDPOINT", None);
    for (url, expected) in [
        ("s3://bucket/a/data", Some("is")),
        ("s3://bucket/a/data/x", Some("is in")),
        ("s3://bucket/a/data/x/y", Some("is in")),
        ("s3://bucket/a", Some("contains")),
        ("s3://bucket", Some("contains")),
        ("s3://bucket/a/data2", None),
        ("s3://bucket/a/dat", None),
        ("s3://bucket/a/Data", None),
        ("s3://bucket/b", None),
        ("s3://bucket/data", None),
        ("s3://bucket/b/a/data", None),
        ("s3://bucket2/a/data", None),
        ("s3://buck/a/data", None),
        ("file:///bucket/a/data", None),
    ] {
        let checked = own.check(&target(url, None));
        let Some(relation) = expected else {
            checked.unwrap_or_else(|error| panic!("{url}: {error}"));
            continue;
        };
        let refused = checked.expect_err(url);
        assert_eq!(refused.reason, Reason::ExportTargetUnavailable);
        let begin = format!("{url} {relation} s3://bucket/a/data, the object store of the cluster");
        assert!(refused.message.starts_with(&begin), "{refused}");
        assert!(refused.message.contains("export to another bucket"), "{refused}");
    }
}

#[test]
fn whole_bucket_of_the_cluster_is_refused() {
    for url in ["s3://bucket", "s3://bucket/"] {
        let own = own(url, "AWS_ENDPOINT", None);
        for target in ["s3://bucket", "s3://bucket/", "s3://bucket/exports/x"] {
            assert!(is_refused(&own, target, None), "{url} {target}");
        }
        assert!(!is_refused(&own, "s3://other/exports/x", None), "{url}");
    }
}

#[test]
fn other_texts_of_the_own_prefix_are_refused() {
    let own = own("s3a://Bucket/data/", "AWS_ENDPOINT", None);
    for url in [
        "s3://bucket/data/",
        "s3a://bucket/data/x",
        "S3://BUCKET//data//x",
        "s3://bucket:9000/data",
        "s3://%62ucket/data",
        "s3://bucket/%64ata/x",
        "s3://bucket/data%2Fx",
        "s3://bucket/./data",
        "s3://bucket/other/../data/x",
        "s3://bucket/other/%2E%2e/data",
        "s3://bucket/data/x/..",
        " s3://bucket/da\nta",
    ] {
        assert!(is_refused(&own, url, None), "{url:?}");
    }
    for url in ["s3://bucket/data/../x", "s3://bucket/data//../../x", "s3://bucket/%data"] {
        assert!(!is_refused(&own, url, None), "{url:?}");
    }
}

#[test]
fn servers_are_compared_without_case_slashes_and_default_ports() {
    for (of_cluster, of_target, expected) in [
        (None, None, true),
        (None, Some("https://s3.amazonaws.com"), true),
        (None, Some("https://s3.eu-central-1.amazonaws.com/"), true),
        (Some("https://s3.eu-central-1.amazonaws.com"), None, true),
        (None, Some("https://store"), false),
        (None, Some("https://notamazonaws.com"), false),
        (Some("https://store"), None, false),
        (Some("https://store"), Some("https://store"), true),
        (Some("https://store"), Some("HTTPS://Store.:443//"), true),
        (Some("http://store/"), Some("http://store:80"), true),
        (Some("http://store"), Some("https://store"), true),
        (Some("https://store"), Some("https:store"), true),
        (Some("https://store"), Some("https:\\\\st%6Fre"), true),
        (Some("http://store:9000"), Some("http://STORE:9000/"), true),
        (Some("http://store:9000"), Some("http://store:9001"), false),
        (Some("http://store:9000"), Some("http://store"), false),
        (Some("http://store:9000"), Some("http://other:9000"), false),
        (Some("https://store/one"), Some("https://store/one/"), true),
        (Some("https://store/one"), Some("https://store/two"), false),
        (Some("http://[::1]:9000"), Some("http://[::1]:9000/"), true),
        (Some("http://[::1]:9000"), Some("http://[::1]"), false),
    ] {
        let own = own("s3://bucket/data", "AWS_ENDPOINT", of_cluster);
        let refused = is_refused(&own, "s3://bucket/data/x", of_target);
        assert_eq!(refused, expected, "{of_cluster:?} {of_target:?}");
    }
}

#[test]
fn endpoint_of_s3_precedes_others() {
    for variable in ENDPOINT_VARIABLES {
        let own = own("s3://bucket", variable, Some("http://store:9000"));
        assert!(is_refused(&own, "s3://bucket/x", Some("http://store:9000")), "{variable}");
        assert!(!is_refused(&own, "s3://bucket/x", None), "{variable}");
    }
    let own = OwnPrefix::new("s3://bucket", |name| match name {
        "AWS_ENDPOINT_URL_S3" => Some("http://first".to_owned()),
        name => Some(format!("http://{}", name.to_ascii_lowercase())),
    });
    assert!(is_refused(&own, "s3://bucket", Some("http://first")));
    assert!(!is_refused(&own, "s3://bucket", Some("http://aws_endpoint")));
    // An empty variable is as one that is not set.
    let own = self::own("s3://bucket", "AWS_ENDPOINT", Some(""));
    assert!(is_refused(&own, "s3://bucket", None));
}

#[test]
fn google_bucket_is_refused_as_s3_target() {
    let own = own("gs://bucket/data", "AWS_ENDPOINT", Some("http://store:9000"));
    let google = Some("https://storage.googleapis.com");
    assert!(is_refused(&own, "s3://bucket/data/x", google));
    assert!(!is_refused(&own, "s3://bucket/other", google));
    assert!(!is_refused(&own, "s3://bucket/data/x", Some("http://store:9000")));
    assert!(!is_refused(&own, "s3://bucket/data/x", None));
}

#[test]
fn other_stores_of_a_cluster_permit_all_targets() {
    for url in ["memory://", "file:///srv/objects", "az://bucket/data", ""] {
        let own = own(url, "AWS_ENDPOINT", None);
        for target in ["s3://bucket/data", "s3://srv/objects", "file:///srv/objects"] {
            assert!(!is_refused(&own, target, None), "{url} {target}");
        }
    }
}
