//! Configurations of sources of objects, and of targets of exports.

use std::ops::RangeInclusive;
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
const WRITABLE_SCHEMES: &str = "file:///absolute/directory or s3://bucket/prefix";

/// Maximum number of texts for missing values.
const MAX_NULLS: usize = 100;
/// Maximum length of a region.
const MAX_REGION_BYTES: usize = 64;
/// Length of the names of Azure's storage accounts.
const ACCOUNT_BYTES: RangeInclusive<usize> = 3..=24;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    allow_http: Option<bool>,
    credentials_file: Option<PathBuf>,
    account: Option<String>,
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

/// Place of the objects of a source or a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory of the node.
    Local(PathBuf),
    /// A prefix of a remote store.
    Remote(RemoteLocation),
}

/// Use of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlaceUse {
    Read,
    Write,
}

/// A prefix of a remote store, and the way to reach the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteLocation {
    /// URL of the prefix, without a slash at its end.
    pub(crate) url: String,
    /// Name of the bucket or container.
    pub(super) bucket: String,
    /// The prefix within its bucket.
    pub(super) prefix: Path,
    /// URL of the server; `None`: that of the provider.
    pub(super) endpoint: Option<Endpoint>,
    /// Protocol of the store.
    pub(super) protocol: Protocol,
}

/// URL of a server, `https://host:port`, or `http://` if the configuration allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The URL without a slash at its end, in the form in which URLs are compared.
    pub(super) url: String,
    /// Port of the server.
    pub(super) port: u16,
    /// The connection is not encrypted.
    pub(super) is_plain: bool,
}

/// Protocol of a remote store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protocol {
    /// S3, or a store with its protocol.
    S3(S3Access),
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure {
        /// Name of the storage account.
        account: String,
    },
}

/// Access to an S3 store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct S3Access {
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
        if format != ObjectFormat::Csv {
            refuse_csv_fields(&fields)?;
        }
        let place = place(&fields, PlaceUse::Read)?;
        let nulls = fields.nulls.unwrap_or_default();
        if nulls.len() > MAX_NULLS {
            return Err(format!("nulls has {} texts, the maximum is {MAX_NULLS}", nulls.len()));
        }
        Ok(Self { place, delimiter, nulls })
    }
}

impl Place {
    /// Reads the configuration of a target: that of a source without the fields of CSV. An error describes the problem for
    /// the user.
    pub(crate) fn of_target(config: &Value) -> Result<Self, String> {
        let fields: Fields = parse(config)?;
        refuse_csv_fields(&fields)?;
        place(&fields, PlaceUse::Write)
    }
}

impl PlaceUse {
    fn schemes(self) -> &'static str {
        match self {
            Self::Read => SCHEMES,
            Self::Write => WRITABLE_SCHEMES,
        }
    }
}

impl RemoteLocation {
    /// Returns the server of the store as text: the endpoint, or the bucket or account at its provider.
    pub(super) fn server(&self) -> String {
        match (&self.endpoint, &self.protocol) {
            (Some(endpoint), _) => endpoint.url.clone(),
            (None, Protocol::S3(_)) => format!("s3://{}", self.bucket),
            (None, Protocol::Google) => format!("gs://{}", self.bucket),
            (None, Protocol::Azure { account }) => format!("az://{account}"),
        }
    }
}

fn refuse_csv_fields(fields: &Fields) -> Result<(), String> {
    if fields.delimiter.is_some() || fields.nulls.is_some() {
        return Err("delimiter and nulls are for csv sources only".to_owned());
    }
    Ok(())
}

fn place(fields: &Fields, place_use: PlaceUse) -> Result<Place, String> {
    let url = &fields.url;
    let schemes = place_use.schemes();
    let parsed = Url::parse(url).map_err(|error| format!("the url: {error}; use {schemes}"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("the url must not have a password: use credentials_file".to_owned());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("the url must not have a query or a fragment".to_owned());
    }
    check_scheme_of_fields(fields, parsed.scheme())?;
    let protocol = match parsed.scheme() {
        "file" => return local(url, &parsed).map(Place::Local),
        "s3" | "s3a" => Protocol::S3(s3_access(fields)?),
        // Requests to these stores have no credentials.
        scheme @ ("gs" | "az") if place_use == PlaceUse::Write => {
            return Err(format!("{scheme}:// can be read only; use {schemes}"));
        }
        "gs" => Protocol::Google,
        "az" => Protocol::Azure { account: account(fields)? },
        other => return Err(format!("the url has the unknown scheme {other:?}; use {schemes}")),
    };
    let bucket = parsed.host_str().unwrap_or_default().to_owned();
    if bucket.is_empty() {
        return Err(format!("the url names no bucket; use {schemes}"));
    }
    if bucket.contains('.') && matches!(protocol, Protocol::Azure { .. }) {
        return Err(format!("the url names no container: {bucket:?} has a dot; use {schemes}"));
    }
    let prefix = Path::from_url_path(parsed.path()).map_err(|error| format!("the url: {error}"))?;
    let url = url.trim_end_matches('/').to_owned();
    let is_http_allowed = fields.allow_http.unwrap_or(false);
    let endpoint =
        fields.endpoint.as_ref().map(|url| Endpoint::parse(url, is_http_allowed)).transpose()?;
    Ok(Place::Remote(RemoteLocation { url, bucket, prefix, endpoint, protocol }))
}

/// Checks that no field is for another scheme.
fn check_scheme_of_fields(fields: &Fields, scheme: &str) -> Result<(), String> {
    let is_s3 = matches!(scheme, "s3" | "s3a");
    if !is_s3 && (fields.region.is_some() || fields.credentials_file.is_some()) {
        return Err("region and credentials_file are for s3:// only".to_owned());
    }
    if scheme != "az" && fields.account.is_some() {
        return Err("account is for az:// only".to_owned());
    }
    if scheme == "file" && (fields.endpoint.is_some() || fields.allow_http.is_some()) {
        return Err("endpoint and allow_http are not for file://".to_owned());
    }
    Ok(())
}

fn local(url: &str, parsed: &Url) -> Result<PathBuf, String> {
    // The first part of file://directory would be a host.
    if parsed.host_str().is_some() || !url.starts_with("file:///") {
        return Err("the directory must be absolute: file:///absolute/directory".to_owned());
    }
    match parsed.to_file_path() {
        Ok(directory) if directory.parent().is_some() => Ok(directory),
        Ok(_) => Err("the url must not name the root directory".to_owned()),
        Err(()) => Err("the url has no valid local path".to_owned()),
    }
}

fn s3_access(fields: &Fields) -> Result<S3Access, String> {
    if fields.credentials_file.as_ref().is_some_and(|file| !file.is_absolute()) {
        return Err("credentials_file must be absolute: nodes run in different directories".into());
    }
    // It is a part of the name of AWS's server, which other characters would lead elsewhere.
    let is_region = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(region) = &fields.region
        && (region.is_empty() || region.len() > MAX_REGION_BYTES || !region.chars().all(is_region))
    {
        return Err(format!(
            "region must have 1 to {MAX_REGION_BYTES} letters, digits, hyphens and underscores"
        ));
    }
    Ok(S3Access {
        region: fields.region.clone(),
        credentials_file: fields.credentials_file.clone(),
    })
}

/// Returns the storage account of an Azure source, which is a part of the name of Azure's server.
fn account(fields: &Fields) -> Result<String, String> {
    let Some(account) = &fields.account else {
        return Err("az:// names no account: set account to the name of the storage account".into());
    };
    let is_account = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !ACCOUNT_BYTES.contains(&account.len()) || !account.chars().all(is_account) {
        return Err(format!(
            "account must have {} to {} lower-case letters and digits",
            ACCOUNT_BYTES.start(),
            ACCOUNT_BYTES.end()
        ));
    }
    Ok(account.clone())
}

impl Endpoint {
    /// Parses a URL; an error describes the problem for the user.
    pub(super) fn parse(endpoint: &str, is_http_allowed: bool) -> Result<Self, String> {
        let parsed = Url::parse(endpoint).map_err(|error| format!("the endpoint: {error}"))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("the endpoint must not have a password: use credentials_file".to_owned());
        }
        let is_plain = parsed.scheme() == "http";
        if !(is_plain || parsed.scheme() == "https")
            || parsed.query().is_some()
            || parsed.fragment().is_some()
        {
            return Err("the endpoint must be https://host:port".to_owned());
        }
        if is_plain && !is_http_allowed {
            return Err(
                "the endpoint does not encrypt rows: use https://, or set allow_http to true"
                    .to_owned(),
            );
        }
        let port = parsed.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or("the endpoint must be https://host:port")?;
        Ok(Self { url: parsed.as_str().trim_end_matches('/').to_owned(), port, is_plain })
    }
}
