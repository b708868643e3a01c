//! Opens the remote store of a source or a target.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig, StaticCredentialProvider};

use super::access_keys::AccessKeys;
use super::client::StoreConnector;
use super::config::{Protocol, RemoteLocation, S3Access};
use crate::{SourceAccess, SourceError};

/// Opens the store below the prefix. Reads files and sends nothing. Blocking. Without a file of credentials, requests are
/// anonymous.
///
/// # Errors
/// [`SourceError::NotPermitted`] and [`SourceError::Unreadable`] of the credentials file;
/// [`SourceError::BadConfig`].
pub(crate) fn open(
    location: &RemoteLocation,
    access: &SourceAccess,
) -> Result<Arc<dyn ObjectStore>, SourceError> {
    let connector = StoreConnector::new(access.hosts().clone(), location.endpoint.as_ref());
    let store: Arc<dyn ObjectStore> = match &location.protocol {
        Protocol::S3(s3) => {
            let builder = s3_builder(location, s3, access)?.with_http_connector(connector);
            Arc::new(builder.build().map_err(|error| refused(location, &error))?)
        }
        Protocol::Google => {
            let builder = google_builder(location).with_http_connector(connector);
            Arc::new(builder.build().map_err(|error| refused(location, &error))?)
        }
        Protocol::Azure { account } => {
            let builder = azure_builder(location, account).with_http_connector(connector);
            Arc::new(builder.build().map_err(|error| refused(location, &error))?)
        }
    };
    Ok(Arc::new(PrefixStore::new(store, location.prefix.clone())))
}

fn s3_builder(
    location: &RemoteLocation,
    s3: &S3Access,
    access: &SourceAccess,
) -> Result<AmazonS3Builder, SourceError> {
    let mut builder = match &s3.credentials_file {
        // Nothing of the environment: a session token there belongs to other credentials.
        Some(file) => {
            let keys = AccessKeys::read(file, &access.read_secret(file)?, location)?;
            AmazonS3Builder::new().with_access_key_id(keys.id).with_secret_access_key(keys.secret)
        }
        // The environment has the credentials of the cluster's own store: a caller must not read it.
        None => AmazonS3Builder::new().with_skip_signature(true),
    };
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(&endpoint.url);
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    Ok(builder.with_url(&location.url).with_retry(retries()))
}

fn google_builder(location: &RemoteLocation) -> GoogleCloudStorageBuilder {
    // Otherwise, the library reads credentials of the user of the process.
    let none = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
    let builder = GoogleCloudStorageBuilder::new()
        .with_skip_signature(true)
        .with_credentials(Arc::new(none))
        .with_url(&location.url)
        .with_retry(retries());
    match &location.endpoint {
        Some(endpoint) => builder.with_base_url(&endpoint.url),
        None => builder,
    }
}

fn azure_builder(location: &RemoteLocation, account: &str) -> MicrosoftAzureBuilder {
    let builder = MicrosoftAzureBuilder::new()
        .with_skip_signature(true)
        .with_account(account)
        .with_url(&location.url)
        .with_retry(retries());
    match &location.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.url.clone()),
        None => builder,
    }
}

fn refused(location: &RemoteLocation, error: &object_store::Error) -> SourceError {
    SourceError::BadConfig(format!("{}: {error}", location.url))
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(60), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path as Prefix;
    use tidewater_common::granted_dirs::DirectoryGrants;

    use super::super::config::Endpoint;
    use super::*;

    fn location(scheme: &str, endpoint: Option<&str>, protocol: Protocol) -> RemoteLocation {
        RemoteLocation {
            url: format!("{scheme}://bucket/p"),
            bucket: "bucket".to_owned(),
            prefix: Prefix::from("p"),
            endpoint: endpoint.map(|url| Endpoint::parse(url, true).unwrap()),
            protocol,
        }
    }

    #[test]
    fn stores_open_with_permitted_credentials_only() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().canonicalize().unwrap();
        let file = secrets.join("keys");
        let keys = "access_key_id=a\nsecret_access_key=b\nbucket=bucket\nendpoint=https://h:9\n";
        std::fs::write(&file, keys).unwrap();
        let mut grants = DirectoryGrants::new(&[]);
        let access = SourceAccess::new(None, Some(&secrets), &mut grants).unwrap();
        let s3 = |endpoint: &str| {
            let region = Some("eu-1".to_owned());
            let s3 = S3Access { region, credentials_file: Some(file.clone()) };
            location("s3", Some(endpoint), Protocol::S3(s3))
        };
        open(&s3("https://h:9"), &access).unwrap();
        for (location, access) in [
            (s3("https://h:9"), &SourceAccess::default()),
            (s3("https://other:9"), &access),
            (s3("http://h:9"), &access),
        ] {
            let error = open(&location, access).unwrap_err();
            assert!(matches!(error, SourceError::NotPermitted(_)), "{error}");
        }
    }

    #[test]
    fn anonymous_stores_open() {
        let azure = || Protocol::Azure { account: "store1".to_owned() };
        for location in [
            location("s3", None, Protocol::S3(S3Access::default())),
            location("s3a", Some("http://h:9"), Protocol::S3(S3Access::default())),
            location("gs", None, Protocol::Google),
            location("gs", Some("http://h:9"), Protocol::Google),
            location("az", None, azure()),
            location("az", Some("http://h:9"), azure()),
        ] {
            open(&location, &SourceAccess::default()).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
