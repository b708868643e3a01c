//! Opens the store of a URL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::local::DurableLocal;
use super::{Storage, StorageError, StorageOptions};

const SCHEMES: &str = "file:///absolute/directory, s3://bucket/prefix, gs://bucket/prefix, \
                       az://container/prefix or memory:///";

/// The store that a URL names.
#[derive(Debug, PartialEq, Eq)]
enum StoreLocation {
    Local(PathBuf),
    S3 { prefix: Path },
    Google { prefix: Path },
    Azure { prefix: Path },
    Memory,
}

pub(super) async fn open(url: &str, options: StorageOptions) -> Result<Storage, StorageError> {
    let wrong = |detail: String| StorageError::Url { url: url.to_owned(), detail };
    let refused = |error: object_store::Error| wrong(error.to_string());
    let (store, prefix): (Arc<dyn ObjectStore>, Path) = match parse(url).map_err(wrong)? {
        StoreLocation::Memory => (Arc::new(object_store::memory::InMemory::new()), Path::default()),
        StoreLocation::Local(dir) => (Arc::new(DurableLocal::open(dir).await?), Path::default()),
        StoreLocation::S3 { prefix } => {
            let builder = AmazonS3Builder::from_env();
            let plain = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint]
                .iter()
                .filter_map(|key| builder.get_config_value(key))
                .any(|endpoint| endpoint.starts_with("http://"));
            let store = builder
                .with_url(url)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_retry(retry_config(&options))
                .with_client_options(client_options(&options).with_allow_http(plain))
                .build()
                .map_err(refused)?;
            (Arc::new(store), prefix)
        }
        StoreLocation::Google { prefix } => {
            let store = GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_retry(retry_config(&options))
                .with_client_options(client_options(&options))
                .build()
                .map_err(refused)?;
            (Arc::new(store), prefix)
        }
        StoreLocation::Azure { prefix } => {
            let store = MicrosoftAzureBuilder::from_env()
                .with_url(url)
                .with_retry(retry_config(&options))
                .with_client_options(client_options(&options))
                .build()
                .map_err(refused)?;
            (Arc::new(store), prefix)
        }
    };
    let store =
        if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) };
    Ok(Storage::new(store, url, options))
}

pub(super) fn check(url: &str) -> Result<(), StorageError> {
    let wrong = |detail| StorageError::Url { url: url.to_owned(), detail };
    parse(url).map(drop).map_err(wrong)
}

pub(super) fn directory(url: &str) -> Option<PathBuf> {
    match parse(url) {
        Ok(StoreLocation::Local(directory)) => Some(directory),
        _ => None,
    }
}

fn parse(url: &str) -> Result<StoreLocation, String> {
    let parsed = Url::parse(url).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => format!("no scheme; use {SCHEMES}"),
        error => format!("{error}; use {SCHEMES}"),
    })?;
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("a query or fragment is not allowed".to_owned());
    }
    let bucket = |kind: &str| match parsed.host_str() {
        Some(host) if !host.is_empty() => {
            Path::from_url_path(parsed.path()).map_err(|error| error.to_string())
        }
        _ => Err(format!("no {kind} in the URL; use {SCHEMES}")),
    };
    match parsed.scheme() {
        "file" => {
            // Url drops the dots of file://./dir and parses the first part of file://dir as a host.
            if parsed.host_str().is_some() || !url.starts_with("file:///") {
                return Err("the directory must be absolute: file:///absolute/directory".to_owned());
            }
            match parsed.to_file_path() {
                Ok(dir) if dir.parent().is_some() => Ok(StoreLocation::Local(dir)),
                Ok(_) => Err("the root directory cannot be used".to_owned()),
                Err(()) => Err("it is not a valid local path".to_owned()),
            }
        }
        "memory" => match (parsed.host_str().unwrap_or(""), parsed.path()) {
            ("", "" | "/") => Ok(StoreLocation::Memory),
            _ => Err("a store in memory has no name or prefix: memory:///".to_owned()),
        },
        "s3" | "s3a" => Ok(StoreLocation::S3 { prefix: bucket("bucket")? }),
        "gs" => Ok(StoreLocation::Google { prefix: bucket("bucket")? }),
        "az" => Ok(StoreLocation::Azure { prefix: bucket("container")? }),
        other => Err(format!("unknown scheme {other:?}; use {SCHEMES}")),
    }
}

/// Retry settings of the library. Its retries end before our deadline, so that its last error is
/// reported.
fn retry_config(options: &StorageOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: options.backoff.first,
            max_backoff: options.backoff.longest,
            base: 2.0,
        },
        max_retries: usize::try_from(options.attempts).unwrap_or(usize::MAX),
        retry_timeout: options.deadline / 2,
    }
}

fn client_options(options: &StorageOptions) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5).min(options.deadline))
        .with_timeout(options.deadline / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls_are_parsed_or_refused() {
        let ok = [
            ("file:///data/tw", StoreLocation::Local("/data/tw".into())),
            ("s3://bucket", StoreLocation::S3 { prefix: Path::default() }),
            ("s3://bucket/a/b/", StoreLocation::S3 { prefix: Path::from("a/b") }),
            ("gs://bucket/a", StoreLocation::Google { prefix: Path::from("a") }),
            ("az://container/a", StoreLocation::Azure { prefix: Path::from("a") }),
            ("memory:///", StoreLocation::Memory),
            ("memory://", StoreLocation::Memory),
        ];
        for (url, target) in ok {
            assert_eq!(parse(url), Ok(target), "{url}");
        }
        let wrong = [
            ("/data/tw", "no scheme"),
            ("data/tw", "no scheme"),
            ("file://data/tw", "absolute"),
            ("file:data/tw", "absolute"),
            ("file:///", "root directory"),
            ("s3:///prefix", "no bucket"),
            ("az://", "no container"),
            ("ftp://host/dir", "unknown scheme \"ftp\""),
            ("memory://name/x", "memory:///"),
            ("s3://bucket/p?x=1", "query"),
            ("", "no scheme"),
        ];
        for (url, part) in wrong {
            let detail = parse(url).unwrap_err();
            assert!(detail.contains(part), "{url}: {detail}");
        }
    }
}
