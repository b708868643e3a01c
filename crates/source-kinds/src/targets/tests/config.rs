use serde_json::json;

use super::super::ExportTargets;

#[test]
fn valid_target_configurations_are_accepted() {
    for config in [
        json!({ "url": "file:///srv/exports/sales" }),
        json!({ "url": "s3://bucket" }),
        json!({ "url": "s3://bucket/a/b/", "region": "eu-central-1" }),
        json!({ "url": "s3://b/p", "endpoint": "http://127.0.0.1:9000", "allow_http": true,
                "credentials_file": "/etc/tidewater/keys" }),
    ] {
        ExportTargets::check(&config).unwrap_or_else(|error| panic!("{config}: {error}"));
    }
}

#[test]
fn target_configuration_errors_name_the_problem() {
    let file = "file:///srv/exports";
    let writable = "use file:///absolute/directory or s3://bucket/prefix";
    for (config, expected) in [
        (json!([]), "it must be a JSON object"),
        (json!({}), "missing field `url`"),
        (json!({ "url": file, "ulr": "x" }), "unknown field `ulr`"),
        (json!({ "url": "/srv/exports" }), writable),
        (json!({ "url": "file://srv/exports" }), "the directory must be absolute"),
        (json!({ "url": "file:///" }), "the url must not name the root directory"),
        (json!({ "url": "s3:///x" }), writable),
        (json!({ "url": "ftp://host/x" }), writable),
        (json!({ "url": "gs://b/x" }), "gs:// can be read only; use file:///absolute/directory or"),
        (json!({ "url": "az://c/x", "account": "store1" }), "az:// can be read only"),
        (json!({ "url": "az://c/x" }), "az:// can be read only"),
        (json!({ "url": file, "region": "x" }), "are for s3:// only"),
        (json!({ "url": file, "endpoint": "https://h" }), "are not for file://"),
        (json!({ "url": file, "delimiter": ";" }), "are for csv sources only"),
        (json!({ "url": file, "nulls": ["NA"] }), "are for csv sources only"),
        (json!({ "url": "s3://b", "endpoint": "http://h" }), "set allow_http to true"),
        (json!({ "url": "s3://b", "credentials_file": "k" }), "must be absolute"),
        (json!({ "url": "s3://id:s3cr3t@b/x" }), "must not have a password"),
        (json!({ "url": "s3://b", "secret_access_key": "s3cr3t" }), "is not permitted"),
    ] {
        let error = ExportTargets::check(&config).expect_err(&config.to_string());
        assert!(error.contains(expected), "{config}: {error}");
        assert!(!error.contains("s3cr3t") && !error.contains("source "), "{error}");
    }
}
