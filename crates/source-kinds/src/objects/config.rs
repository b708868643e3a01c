//! Configurations of sources of objects.

use std::path::PathBuf;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::Value;
use tidewater_readers::delimiter::Delimiter;
use url::Url;

use super::format::ObjectFormat;
use crate::config::parse;

const SCHEMES: &str = "file:///absolute/directory, s3://bucket/prefix, gs://bucket/prefix or \
                       az://container/prefix";

/// Maximum number of texts for missing values.
const MAX_NULLS: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    allow_http: Option<bool>,
    credentials_file: Option<PathBuf>,
    delimiter: Option<String>,
    nulls: Option<Vec<String>>,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectsConfig {
    /// Place of the objects.
    pub(super) place: Place,
    /// Delimiter of CSV cells.
    pub(super) delimiter: Delimiter,
    /// Texts of CSV that represent a missing value.
    pub(super) nulls: Vec<String>,
}

/// Place of the objects of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory of the node.
    Local(PathBuf),
    /// A prefix of a remote store.
    Remote(RemoteLocation),
}

/// A prefix of a remote store, and the way to reach the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteLocation {
    /// URL of the prefix, without a slash at its end.
    pub(super) url: String,
    /// The prefix within its bucket.
    pub(super) prefix: Path,
    /// Protocol of the store.
    pub(super) protocol: Protocol,
}

/// Protocol of a remote store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protocol {
    /// S3, or a store with its protocol.
    S3(S3Access),
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// Access to an S3 store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct S3Access {
    /// URL of the server; `None`: that of AWS.
    pub(super) endpoint: Option<String>,
    /// Region of the bucket.
    pub(super) region: Option<String>,
    /// File on the nodes with the credentials; `None`: requests are anonymous.
    pub(super) credentials_file: Option<PathBuf>,
}

impl ObjectsConfig {
    /// Reads a configuration; an error describes the problem for the user.
    pub(super) fn read(config: &Value, format: ObjectFormat) -> Result<Self, String> {
        let fields: Fields = parse(config)?;
        let delimiter = match &fields.delimiter {
            Some(text) => text.parse().map_err(|error| format!("delimiter {text:?}: {error}"))?,
            None => Delimiter::default(),
        };
        if format != ObjectFormat::Csv && (fields.delimiter.is_some() || fields.nulls.is_some()) {
            return Err("delimiter and nulls are for csv sources only".to_owned());
        }
        let place = place(&fields)?;
        let nulls = fields.nulls.unwrap_or_default();
        if nulls.len() > MAX_NULLS {
            return Err(format!("nulls has {} texts, the maximum is {MAX_NULLS}", nulls.len()));
        }
        Ok(Self { place, delimiter, nulls })
    }
}

fn place(fields: &Fields) -> Result<Place, String> {
    let url = &fields.url;
    let parsed = Url::parse(url).map_err(|error| format!("the url: {error}; use {SCHEMES}"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("the url must not have a password: use credentials_file".to_owned());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("the url must not have a query or a fragment".to_owned());
    }
    let s3 = s3_access(fields)?;
    let is_s3 = matches!(parsed.scheme(), "s3" | "s3a");
    if !is_s3 && (s3 != S3Access::default() || fields.allow_http.is_some()) {
        return Err(
            "endpoint, region, allow_http and credentials_file are for s3:// only".to_owned()
        );
    }
    let protocol = match parsed.scheme() {
        "file" => return local(url, &parsed).map(Place::Local),
        "s3" | "s3a" => Protocol::S3(s3),
        "gs" => Protocol::Google,
        "az" => Protocol::Azure,
        other => return Err(format!("the url has the unknown scheme {other:?}; use {SCHEMES}")),
    };
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(format!("the url names no bucket; use {SCHEMES}"));
    }
    let prefix = Path::from_url_path(parsed.path()).map_err(|error| format!("the url: {error}"))?;
    let url = url.trim_end_matches('/').to_owned();
    Ok(Place::Remote(RemoteLocation { url, prefix, protocol }))
}

fn local(url: &str, parsed: &Url) -> Result<PathBuf, String> {
    // The first part of file://directory would be a host.
    if parsed.host_str().is_some() || !url.starts_with("file:///") {
        return Err("the directory must be absolute: file:///absolute/directory".to_owned());
    }
    match parsed.to_file_path() {
        Ok(directory) if directory.parent().is_some() => Ok(directory),
        Ok(_) => Err("the root directory cannot be a source".to_owned()),
        Err(()) => Err("the url has no valid local path".to_owned()),
    }
}

fn s3_access(fields: &Fields) -> Result<S3Access, String> {
    if let Some(endpoint) = &fields.endpoint {
        check_endpoint(endpoint, fields.allow_http.unwrap_or(false))?;
    }
    if fields.credentials_file.as_ref().is_some_and(|file| !file.is_absolute()) {
        return Err("credentials_file must be absolute: nodes run in different directories".into());
    }
    Ok(S3Access {
        endpoint: fields.endpoint.clone(),
        region: fields.region.clone(),
        credentials_file: fields.credentials_file.clone(),
    })
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), String> {
    let parsed = Url::parse(endpoint).map_err(|error| format!("the endpoint: {error}"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("the endpoint must not have a password: use credentials_file".to_owned());
    }
    if !matches!(parsed.scheme(), "http" | "https")
        || parsed.query().is_some()
        || parsed.fragment().is_some()
    {
        return Err("the endpoint must be https://host:port".to_owned());
    }
    if parsed.scheme() == "http" && !allow_http {
        return Err("the endpoint does not encrypt rows: use https://, or set allow_http to true"
            .to_owned());
    }
    Ok(())
}
