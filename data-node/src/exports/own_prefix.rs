//! Prefix of the cluster's own object store, in which no export has its objects. Pure, except for the environment of
//! the process.
//!
//! The garbage collection of the cluster deletes objects there, and the objects of an export could be taken for those
//! of a region. Local directories are compared when the node starts (`--export-dir`), and targets are either these or
//! S3.
//!
//! Several texts name one prefix. Two names of one server that are not recognized here, such as aliases of a host,
//! differ.

use serde_json::Value;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

/// Variables of the environment that name the server of the cluster's own S3 store: the first one that is set counts.
const ENDPOINT_VARIABLES: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// Server of Google Cloud Storage, whose buckets can be reached by the protocol of S3, too.
const GOOGLE_SERVER: &str = "storage.googleapis.com";

/// Prefix of the cluster's own object store.
#[derive(Debug)]
pub(super) struct OwnPrefix {
    /// URL for people.
    url: String,
    /// `None`: the store is not one that exports write to.
    prefix: Option<BucketPrefix>,
}

impl OwnPrefix {
    /// Returns the prefix of the store at this URL, with the environment of the process.
    pub(super) fn from_environment(url: &str) -> Self {
        Self::new(url, |name| std::env::var(name).ok())
    }

    /// Returns the prefix of the store at this URL. `variable`: returns a variable of the environment.
    pub(super) fn new(url: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
        let endpoint = ENDPOINT_VARIABLES.iter().find_map(set);
        Self { url: url.to_owned(), prefix: BucketPrefix::of(url, endpoint.as_deref()) }
    }

    /// Checks that the target of an export neither is in the prefix nor contains it. `target`: a valid configuration.
    ///
    /// # Errors
    /// [`Reason::ExportTargetUnavailable`], like other targets that a node does not permit.
    pub(super) fn check(&self, target: &Value) -> Result<(), Refusal> {
        let text = |name: &str| target.get(name).and_then(Value::as_str);
        let url = text("url").unwrap_or_default();
        let Some(own) = &self.prefix else { return Ok(()) };
        let Some(prefix) = BucketPrefix::of(url, text("endpoint")) else { return Ok(()) };
        let Some(relation) = prefix.relation_to(own) else { return Ok(()) };
        let own = &self.url;
        let text = format!(
            "{url} {relation} {own}, the object store of the cluster, where its garbage collection deletes objects: \
             export to another bucket, or to a prefix that neither contains {own} nor is in it"
        );
        Err(Refusal::new(Reason::ExportTargetUnavailable, text))
    }
}

/// Prefix of a bucket that the protocol of S3 can reach.
#[derive(Debug)]
struct BucketPrefix {
    /// Server, as [`server_of`] returns it; `None`: that of AWS, in any region.
    server: Option<String>,
    /// Name of the bucket in lower case, and parts of the path without their percent-encoding.
    path: Vec<Vec<u8>>,
}

impl BucketPrefix {
    /// Returns the prefix of a URL; `None`: it is of another kind of store. `endpoint`: URL of the server of an S3
    /// store.
    fn of(url: &str, endpoint: Option<&str>) -> Option<Self> {
        let url = cleaned(url);
        let (scheme, rest) = url.split_once("://")?;
        let (server, base) = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => endpoint.map(server_of).unwrap_or_default(),
            "gs" => (Some(GOOGLE_SERVER.to_owned()), Vec::new()),
            _ => return None,
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        // Nodes ignore a port.
        let name = host.split(':').next().unwrap_or_default();
        let bucket = percent_decoded(name).to_ascii_lowercase();
        // The path of an endpoint comes before the bucket.
        let path = base.into_iter().chain([bucket]).chain(path_parts(path)).collect();
        Some(Self { server, path })
    }

    /// Returns a verb for the relation to the cluster's own prefix; `None`: neither contains the other one.
    fn relation_to(&self, own: &Self) -> Option<&'static str> {
        if self.server != own.server {
            return None;
        }
        if self.path == own.path {
            Some("is")
        } else if self.path.starts_with(&own.path) {
            Some("is in")
        } else if own.path.starts_with(&self.path) {
            Some("contains")
        } else {
            None
        }
    }
}

/// Returns a URL without the characters that the rules of URLs ignore.
fn cleaned(url: &str) -> String {
    let trimmed = url.trim_matches(|c: char| c <= ' ');
    trimmed.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect()
}

/// Returns the server of a URL in the form in which servers are compared, and the parts of its path in lower case: host and port in
/// lower case, without the scheme and its default port. `None`: a server of AWS, where a bucket has one name in all regions.
fn server_of(endpoint: &str) -> (Option<String>, Vec<Vec<u8>>) {
    let endpoint = cleaned(endpoint).to_ascii_lowercase().replace('\\', "/");
    let (scheme, rest) = endpoint.split_once(':').unwrap_or(("", endpoint.as_str()));
    // The rules of URLs accept any number of slashes before a host.
    let rest = rest.trim_matches('/');
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (_, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
    let default_port = if scheme == "http" { ":80" } else { ":443" };
    let host = authority.strip_suffix(default_port).unwrap_or(authority);
    let host = String::from_utf8_lossy(&percent_decoded(host)).to_ascii_lowercase();
    let host = host.trim_end_matches([':', '.']);
    let is_aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    ((!is_aws).then(|| host.to_owned()), path_parts(path))
}

/// Returns the parts of the path of a URL. The parts `.` and `..` are resolved before the percent-encoding, as the
/// rules of URLs require. An empty part counts until then.
fn path_parts(path: &str) -> Vec<Vec<u8>> {
    let mut encoded: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => {
                encoded.pop();
            }
            _ => encoded.push(part),
        }
    }
    let decoded = percent_decoded(&encoded.join("/"));
    let parts = decoded.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.map(<[u8]>::to_vec).collect()
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = match (first, after) {
            (b'%', [high, low, later @ ..]) => hex_byte(*high, *low).map(|byte| (byte, later)),
            _ => None,
        };
        let (byte, later) = encoded.unwrap_or((*first, after));
        decoded.push(byte);
        rest = later;
    }
    decoded
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(16 * digit(high)? + digit(low)?).ok()
}

#[cfg(test)]
mod tests;
