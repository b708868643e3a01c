//! One HTTP request, and what its answer means.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, redirect};
use ring::hmac;
use url::Url;

const HOOK: HeaderName = HeaderName::from_static("x-tidewater-hook");
const SIGNATURE: HeaderName = HeaderName::from_static("x-tidewater-signature");

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver has it.
    Taken,
    /// It has not, as far as is known: once more.
    Again(String),
    /// It will never take this one.
    Refused(String),
}

/// Posts a body once.
#[async_trait]
pub(super) trait Transport: std::fmt::Debug + Send + Sync + 'static {
    async fn post(&self, body: Bytes) -> Answer;
}

/// By HTTP.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    url: Url,
    hook: HeaderValue,
    secret_file: Option<PathBuf>,
}

impl Http {
    pub(super) fn new(
        name: &str,
        url: Url,
        secret_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            // What it posts does not depend on the environment in which a node was started.
            .no_proxy()
            .build()
            .map_err(|error| format!("no HTTP client can be made: {error}"))?;
        let hook = HeaderValue::from_str(name)
            .map_err(|_| "the hook's name cannot stand in a header".to_owned())?;
        Ok(Self { client, url, hook, secret_file })
    }

    async fn signature(&self, body: &Bytes) -> Result<Option<HeaderValue>, String> {
        let Some(file) = &self.secret_file else { return Ok(None) };
        let secret = tokio::fs::read(file)
            .await
            .map_err(|error| format!("the secret in {} cannot be read: {error}", file.display()))?;
        let value = signature(secret.trim_ascii_end(), body);
        HeaderValue::from_str(&value).map(Some).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Transport for Http {
    async fn post(&self, body: Bytes) -> Answer {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HOOK, self.hook.clone());
        match self.signature(&body).await {
            Ok(Some(signature)) => request = request.header(SIGNATURE, signature),
            Ok(None) => {}
            // Never without the signature that the receiver waits for.
            Err(problem) => return Answer::Again(problem),
        }
        match request.body(body).send().await {
            Ok(answer) => judge(answer.status()),
            // Without the URL: it may hold a token.
            Err(error) => Answer::Again(chain(&error.without_url())),
        }
    }
}

/// `sha256=` and the HMAC-SHA256 in hex.
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

fn judge(status: StatusCode) -> Answer {
    let said = || format!("the receiver answered {status}");
    match status {
        _ if status.is_success() => Answer::Taken,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Answer::Again(said())
        }
        _ if status.is_server_error() => Answer::Again(said()),
        _ => Answer::Refused(said()),
    }
}

/// An error with its causes: the first one alone says only that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text.push_str(": ");
        text.push_str(&one.to_string());
        cause = one.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_more_or_refused() {
        for (status, expected) in [(200, 0), (204, 0), (503, 1), (429, 1), (408, 1), (500, 1)]
            .into_iter()
            .chain([(301, 2), (400, 2), (401, 2), (404, 2), (410, 2), (100, 2)])
        {
            let answer = judge(StatusCode::from_u16(status).unwrap());
            let number = match answer {
                Answer::Taken => 0,
                Answer::Again(_) => 1,
                Answer::Refused(_) => 2,
            };
            assert_eq!(number, expected, "{status}");
        }
    }

    #[test]
    fn the_signature_is_an_hmac_of_the_body() {
        // RFC 4231, test case 2.
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
