//! HTTP client of remote stores.
//!
//! A caller chooses the server. The client therefore calls permitted addresses only, follows no redirects, and passes on
//! of the body of an error no more than its code: errors of sources are shown to callers, who could otherwise read what a
//! server of the operator's network sends to its nodes.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use url::{Host, Url};

use super::config::Endpoint;
use super::store_error::find_cause;
use crate::hosts::{HostError, HostRefused, SourceHosts};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Port of the servers of providers.
const HTTPS_PORT: u16 = 443;
/// Bytes of an error's body in which its code is found.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// Maximum length of an error's code.
const MAX_CODE_BYTES: usize = 64;

type BoxError = Box<dyn Error + Send + Sync>;

/// The one way in which clients of a source or a target are created.
#[derive(Debug, Clone)]
pub(super) struct StoreConnector {
    hosts: SourceHosts,
    /// Port of all requests: a resolver knows the names of servers only.
    port: u16,
    /// Requests need not be encrypted.
    is_plain: bool,
}

impl StoreConnector {
    /// Creates the connector of a source. `endpoint`: its server; `None`: that of the provider.
    pub(super) fn new(hosts: SourceHosts, endpoint: Option<&Endpoint>) -> Self {
        Self {
            hosts,
            port: endpoint.map_or(HTTPS_PORT, |endpoint| endpoint.port),
            is_plain: endpoint.is_some_and(|endpoint| endpoint.is_plain),
        }
    }
}

impl HttpConnector for StoreConnector {
    /// Ignores the options, which could name a proxy.
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        // The library's timeout is that of a whole response. A large object takes longer, so that its reader has
        // a timeout for each part.
        let client = reqwest::Client::builder()
            .user_agent("tidewater")
            .connect_timeout(CONNECT_TIMEOUT)
            .https_only(!self.is_plain)
            // One connection for all requests, as HTTP/2 has it, is slower for large objects.
            .http1_only()
            // Sizes of objects are compared with the bytes that are sent.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // Requests must not depend on the environment of the node's process.
            .no_proxy()
            // A server must not choose where the next request goes.
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(StoreResolver { hosts: self.hosts.clone(), port: self.port }))
            .build()
            .map_err(|error| object_store::Error::Generic {
                store: "HTTP client",
                source: Box::new(error),
            })?;
        Ok(HttpClient::new(StoreService { client, hosts: self.hosts.clone(), port: self.port }))
    }
}

/// Resolver of the names of servers.
#[derive(Debug)]
struct StoreResolver {
    hosts: SourceHosts,
    port: u16,
}

impl Resolve for StoreResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.hosts.clone();
        let port = self.port;
        Box::pin(async move {
            let resolved = hosts.resolve(name.as_str(), port).await;
            let addresses = resolved.map_err(|error| match error {
                HostError::Refused(refused) => BoxError::from(refused),
                HostError::Lookup(error) => BoxError::from(error),
            })?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Service of one client.
#[derive(Debug)]
struct StoreService {
    client: reqwest::Client,
    hosts: SourceHosts,
    port: u16,
}

#[async_trait]
impl HttpService for StoreService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.check(&request)?;
        let called = HttpService::call(&self.client, request).await;
        let response = called.map_err(|error| match find_cause::<HostRefused>(&error) {
            // The library would retry the connection.
            Some(refused) => final_error(refused.clone()),
            None => error,
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let code = error_code(&begin_of(body).await).unwrap_or_default();
        Ok(HttpResponse::from_parts(parts, code.into()))
    }
}

impl StoreService {
    /// Checks the address of a request. A name is checked when it is resolved.
    fn check(&self, request: &HttpRequest) -> Result<(), HttpError> {
        let url = Url::parse(&request.uri().to_string()).map_err(final_error)?;
        let port = url.port_or_known_default();
        let Some(port) = port.filter(|port| *port == self.port) else {
            let text = "a request names another port than the configured server";
            return Err(final_error(std::io::Error::other(text)));
        };
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.hosts.check(&address.to_string(), port, address).map_err(final_error)
    }
}

/// Returns an error after which a request is not retried.
fn final_error(error: impl Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// Reads the first bytes of a body.
async fn begin_of(body: HttpResponseBody) -> Vec<u8> {
    let mut parts = body.bytes_stream();
    let mut begin = Vec::new();
    while begin.len() < MAX_ERROR_BYTES
        && let Some(Ok(part)) = parts.next().await
    {
        begin.extend_from_slice(&part);
    }
    begin
}

/// Returns the code of an error, as `AccessDenied`, if the body has one.
fn error_code(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_code = (1..=MAX_CODE_BYTES).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_an_error_is_a_short_word() {
        let long = format!("<Error><Code>{}</Code></Error>", "a".repeat(MAX_CODE_BYTES + 1));
        for (body, expected) in [
            (
                "<Error><Code>AccessDenied</Code><Message>s3cr3t</Message></Error>",
                Some("AccessDenied"),
            ),
            ("<Code>a</Code><Code>b</Code>", Some("a")),
            ("<Code></Code>", None),
            ("<Code>two words</Code>", None),
            ("<Code>never ends", None),
            ("s3cr3t", None),
            (long.as_str(), None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(error_code(b"\xff<Code>a</Code>").as_deref(), Some("a"));
    }
}
