//! Opens the remote store of a source.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::config::{Protocol, RemoteLocation, S3Access};
use crate::{SourceAccess, SourceError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the store below the prefix. Reads files and sends nothing. Blocking. Without a file of credentials, requests are
/// anonymous.
///
/// # Errors
/// [`SourceError::NotPermitted`] and [`SourceError::Unreadable`] of the credentials file;
/// [`SourceError::BadConfig`].
pub(super) fn open(
    location: &RemoteLocation,
    access: &SourceAccess,
) -> Result<Arc<dyn ObjectStore>, SourceError> {
    let url = location.url.as_str();
    let store = match &location.protocol {
        Protocol::S3(s3) => open_s3(url, s3, access)?,
        Protocol::Google => GoogleCloudStorageBuilder::new()
            .with_skip_signature(true)
            .with_url(url)
            .with_retry(retries())
            .with_client_options(client(false))
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            .map_err(|error| refused(url, &error))?,
        Protocol::Azure => MicrosoftAzureBuilder::new()
            .with_skip_signature(true)
            .with_url(url)
            .with_retry(retries())
            .with_client_options(client(false))
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            .map_err(|error| refused(url, &error))?,
    };
    Ok(Arc::new(PrefixStore::new(store, location.prefix.clone())))
}

fn open_s3(
    url: &str,
    s3: &S3Access,
    access: &SourceAccess,
) -> Result<Arc<dyn ObjectStore>, SourceError> {
    let mut builder = match &s3.credentials_file {
        // Nothing of the environment: a session token there belongs to other credentials.
        Some(file) => {
            let keys = AccessKeys::parse(file, &access.read_secret(file)?)?;
            AmazonS3Builder::new().with_access_key_id(keys.id).with_secret_access_key(keys.secret)
        }
        // The environment has the credentials of the cluster's own store: a caller must not read it.
        None => AmazonS3Builder::new().with_skip_signature(true),
    };
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    // The configuration's check permits the endpoint, or the operator has chosen it.
    let is_plain = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint]
        .iter()
        .filter_map(|key| builder.get_config_value(key))
        .any(|endpoint| endpoint.starts_with("http://"));
    let store = builder
        .with_url(url)
        .with_retry(retries())
        .with_client_options(client(is_plain))
        .build()
        .map_err(|error| refused(url, &error))?;
    Ok(Arc::new(store))
}

fn refused(url: &str, error: &object_store::Error) -> SourceError {
    SourceError::BadConfig(format!("{url}: {error}"))
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(60), ..Default::default() }
}

fn client(allow_http: bool) -> ClientOptions {
    // The library's timeout is that of a whole response. A large object takes longer, so that its reader has
    // a timeout for each part.
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_allow_http(allow_http)
}

/// Credentials of a file.
#[derive(PartialEq, Eq)]
struct AccessKeys {
    id: String,
    secret: String,
}

impl AccessKeys {
    /// Reads lines of the form `name=value`. No error contains a part of the text.
    fn parse(file: &Path, text: &str) -> Result<Self, SourceError> {
        let bad = |problem: String| {
            SourceError::Unreadable(format!("credentials_file {}: {problem}", file.display()))
        };
        let (mut id, mut secret) = (None, None);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let field = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let slot = match field {
                Some(("access_key_id", _)) => &mut id,
                Some(("secret_access_key", _)) => &mut secret,
                _ => {
                    return Err(bad(format!(
                        "line {} is neither access_key_id=.. nor secret_access_key=..",
                        number + 1
                    )));
                }
            };
            let value = field.map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty());
            if slot.is_some() || value.is_none() {
                return Err(bad(format!("line {} has no value, or repeats one", number + 1)));
            }
            *slot = value;
        }
        match (id, secret) {
            (Some(id), Some(secret)) => Ok(Self { id, secret }),
            (None, _) => Err(bad("it has no line access_key_id=..".to_owned())),
            (_, None) => Err(bad("it has no line secret_access_key=..".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path as Prefix;

    use super::*;

    fn parse(text: &str) -> Result<AccessKeys, String> {
        AccessKeys::parse(Path::new("/f"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn credentials_are_read_from_lines() {
        for text in [
            "access_key_id=a\nsecret_access_key=b=",
            "# mine\r\n\r\nsecret_access_key = b=\r\naccess_key_id = a \r\n",
        ] {
            let keys = parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("a", "b="));
        }
    }

    #[test]
    fn credentials_errors_name_the_line_without_its_text() {
        for (text, expected) in [
            ("", "no line access_key_id"),
            ("access_key_id=a", "no line secret_access_key"),
            ("secret_access_key=s3cr3t", "no line access_key_id"),
            ("access_key_id=a\ns3cr3t", "line 2 is neither"),
            ("access_key_id=a\naccess_key_id=s3cr3t", "line 2 has no value, or repeats one"),
            ("access_key_id=", "line 1 has no value"),
        ] {
            let error = parse(text).err().unwrap_or_default();
            assert!(error.contains(expected) && error.contains("/f"), "{text}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn stores_open_with_permitted_credentials_only() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().canonicalize().unwrap();
        let file = secrets.join("keys");
        std::fs::write(&file, "access_key_id=a\nsecret_access_key=b\n").unwrap();
        let access = SourceAccess::new(None, Some(&secrets), &[]).unwrap();
        let location = |endpoint: &str| RemoteLocation {
            url: "s3://bucket/p".to_owned(),
            prefix: Prefix::from("p"),
            protocol: Protocol::S3(S3Access {
                endpoint: Some(endpoint.to_owned()),
                region: Some("eu-1".to_owned()),
                credentials_file: Some(file.clone()),
            }),
        };
        for endpoint in ["https://127.0.0.1:9", "http://127.0.0.1:9"] {
            open(&location(endpoint), &access).unwrap();
        }
        let error = open(&location("https://127.0.0.1:9"), &SourceAccess::default()).unwrap_err();
        assert!(matches!(error, SourceError::NotPermitted(_)), "{error}");
    }
}
