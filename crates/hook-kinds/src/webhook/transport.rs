//! The HTTP transport of webhooks: one request, and the meaning of its response.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, redirect};
use ring::hmac;
use url::Url;

use super::address::{self, WebhookResolver};
use crate::files;

const HOOK: HeaderName = HeaderName::from_static("x-tidewater-hook");
const SIGNATURE: HeaderName = HeaderName::from_static("x-tidewater-signature");

/// Outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PostOutcome {
    /// The receiver has accepted the call.
    Accepted,
    /// The receiver may not have the call: retry.
    Retry(String),
    /// The receiver will never accept this call.
    Rejected(String),
}

/// A way to post a body once.
#[async_trait]
pub(super) trait Transport: std::fmt::Debug + Send + Sync + 'static {
    async fn post(&self, body: Bytes) -> PostOutcome;
}

/// Transport over HTTP.
#[derive(Debug)]
pub(super) struct HttpTransport {
    client: Client,
    url: Url,
    hook: HeaderValue,
    secret: Option<SecretFile>,
}

/// The file with the key of a hook's signatures.
#[derive(Debug, Clone)]
pub(super) struct SecretFile {
    root: Arc<Path>,
    path: Arc<Path>,
}

impl SecretFile {
    /// Checks that the secret can be read. `root`: the directory below which it must be.
    pub(super) fn open(root: &Path, path: PathBuf) -> Result<Self, String> {
        let secret = Self { root: root.into(), path: path.into() };
        secret.read().map(|_| secret)
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        files::read_secret(&self.root, &self.path)
            .map_err(|error| format!("secret_file {}: {error}", self.path.display()))
    }
}

impl HttpTransport {
    /// Creates a transport to `url`. `allow_private`: the host may have an address that is not
    /// public.
    pub(super) fn new(
        name: &str,
        url: Url,
        secret: Option<SecretFile>,
        timeout: Duration,
        allow_private: bool,
    ) -> Result<Self, String> {
        address::check_host(&url, allow_private)?;
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            // Requests must not depend on the environment of the node's process.
            .no_proxy()
            .dns_resolver(Arc::new(WebhookResolver { allow_private }))
            .build()
            .map_err(|error| format!("cannot create an HTTP client: {error}"))?;
        let hook = HeaderValue::from_str(name)
            .map_err(|_| "the hook's name is not a valid HTTP header value".to_owned())?;
        Ok(Self { client, url, hook, secret })
    }

    async fn signature(&self, body: &Bytes) -> Result<Option<HeaderValue>, String> {
        let Some(file) = self.secret.clone() else { return Ok(None) };
        let secret = tokio::task::spawn_blocking(move || file.read())
            .await
            .map_err(|error| error.to_string())??;
        let value = signature(&secret, body);
        HeaderValue::from_str(&value).map(Some).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn post(&self, body: Bytes) -> PostOutcome {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HOOK, self.hook.clone());
        match self.signature(&body).await {
            Ok(Some(signature)) => request = request.header(SIGNATURE, signature),
            Ok(None) => {}
            // The receiver expects a signature: never post without it.
            Err(problem) => return PostOutcome::Retry(problem),
        }
        match request.body(body).send().await {
            Ok(response) => outcome_of(response.status()),
            // Without the URL, which may contain a token.
            Err(error) => PostOutcome::Retry(with_causes(&error.without_url())),
        }
    }
}

/// `sha256=` and the HMAC-SHA256 in hexadecimal digits.
pub(super) fn signature(secret: &[u8], body: &[u8]) -> String {
    use std::fmt::Write;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, body);
    tag.as_ref().iter().fold("sha256=".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn outcome_of(status: StatusCode) -> PostOutcome {
    let problem = || format!("the receiver answered {status}");
    match status {
        _ if status.is_success() => PostOutcome::Accepted,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            PostOutcome::Retry(problem())
        }
        _ if status.is_server_error() => PostOutcome::Retry(problem()),
        _ => PostOutcome::Rejected(problem()),
    }
}

/// The text of an error and its causes: the top level states only that a request failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_status_decides_accept_retry_or_reject() {
        for (status, expected) in [(200, 0), (204, 0), (503, 1), (429, 1), (408, 1), (500, 1)]
            .into_iter()
            .chain([(301, 2), (400, 2), (401, 2), (404, 2), (410, 2), (100, 2)])
        {
            let outcome = outcome_of(StatusCode::from_u16(status).unwrap());
            let number = match outcome {
                PostOutcome::Accepted => 0,
                PostOutcome::Retry(_) => 1,
                PostOutcome::Rejected(_) => 2,
            };
            assert_eq!(number, expected, "{status}");
        }
    }

    #[test]
    fn webhook_signature_is_an_hmac_of_the_body() {
        // RFC 4231, test case 2.
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
