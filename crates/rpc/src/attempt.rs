//! One attempt of a call: its deadline, and whether it failed or its outcome is unknown.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use tidewater_common::reason::RetryAction;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tonic::{Code, ConnectError, Request, Response, Status, TimeoutExpired};

/// Attempt of a call that did not succeed.
#[derive(Debug, Clone)]
pub struct FailedAttempt {
    /// RPC error of the node, or the error that the caller made in its place.
    pub refusal: Refusal,
    /// Effect of the attempt if it was a write.
    pub effect: Effect,
    /// `true` if no answer arrived: the connection was not made, broke, or timed out.
    pub silent: bool,
}

impl FailedAttempt {
    /// Creates the failure of a call that was not sent. Its reason is [`Reason::Unavailable`]: the address
    /// of a node, also an unusable one, is from other nodes, so the request itself is not at fault.
    #[must_use]
    pub fn not_sent(mut refusal: Refusal) -> Self {
        refusal.reason = Reason::Unavailable;
        Self { refusal, effect: Effect::None, silent: true }
    }

    /// Returns the meaning of a call's status: its error, its effect, and whether the node answered.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let mut refusal = Refusal::from_status(status);
        if has_source::<ConnectError>(status) {
            refusal.message = format!("cannot connect: {}", root_cause(status));
            return Self::not_sent(refusal);
        }
        // Nodes attach a detail to every error. An error without it is from the transport.
        let silent = status.details().is_empty() && status.source().is_some();
        if silent {
            refusal.message = format!("{}: {}", refusal.message, root_cause(status));
        }
        if is_cancelled(status) && !is_deadline(status) {
            // A node that stops cancels its calls.
            refusal.reason = Reason::Unavailable;
        }
        Self { effect: refusal.effect(), refusal, silent }
    }

    /// Returns whether the attempt reached its deadline.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.silent && self.refusal.reason == Reason::DeadlineExceeded
    }

    /// Returns the reaction to the attempt.
    #[must_use]
    pub fn retry_action(&self) -> RetryAction {
        if self.silent { RetryAction::FindLeader } else { self.refusal.retry_action() }
    }
}

impl From<FailedAttempt> for Refusal {
    fn from(failed: FailedAttempt) -> Self {
        failed.refusal
    }
}

/// Waits for the response to a call for at most `limit`. `target` names the node in messages.
///
/// # Errors
/// The node's error or the transport's. After a timeout, the effect of the call is unknown.
pub async fn attempt<T>(
    target: impl Display,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, FailedAttempt> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if !is_deadline(&status) => Err(FailedAttempt::from_status(&status)),
        Ok(Err(_)) | Err(_) => {
            let message = format!("{target} did not answer within {limit:?}");
            Err(FailedAttempt {
                refusal: Refusal::new(Reason::DeadlineExceeded, message),
                effect: Effect::Unknown,
                silent: true,
            })
        }
    }
}

/// Returns a request that carries the deadline of its call, so that the node stops then, too.
pub fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// Returns whether the transport has cancelled a call, on this side or on the other.
fn is_cancelled(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.details().is_empty()
}

/// Returns whether the transport has cancelled a call because of its deadline, which it knows on both
/// sides, and which it may notice before this crate does.
fn is_deadline(status: &Status) -> bool {
    is_cancelled(status)
        && (has_source::<TimeoutExpired>(status)
            || status.message() == TimeoutExpired(()).to_string())
}

/// Returns whether a status was made because of an error of this type.
fn has_source<E: Error + 'static>(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn root_cause(status: &Status) -> String {
    let mut cause: Option<&dyn Error> = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;
    use tidewater_proto::v1::meta_client::MetaClient;

    use super::*;
    use crate::connect::ConnectPolicy;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn get_catalog(address: &str, limit: Duration) -> FailedAttempt {
        let mut client = MetaClient::new(ConnectPolicy::CLIENT.channel(address).unwrap());
        let request = timed(v1::GetCatalogRequest {}, limit);
        attempt(address, limit, client.get_catalog(request)).await.unwrap_err()
    }

    #[tokio::test]
    async fn calls_without_connection_have_no_effect() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let failure = get_catalog(&address, LIMIT).await;
        assert_eq!(failure.effect, Effect::None, "{failure:?}");
        assert!(failure.silent && !failure.is_timeout());
        assert!(failure.refusal.message.contains("refused"), "{}", failure.refusal.message);
    }

    #[test]
    fn calls_to_unusable_address_find_the_node_unavailable() {
        let unusable = ConnectPolicy::CLIENT.channel("no address at all").unwrap_err();
        assert_eq!(unusable.reason, Reason::InvalidArgument);
        let failure = FailedAttempt::not_sent(unusable);
        assert_eq!((failure.refusal.reason, failure.effect), (Reason::Unavailable, Effect::None));
        assert!(failure.refusal.message.contains("no address at all"), "{failure:?}");
    }

    #[tokio::test]
    async fn calls_with_closed_connection_have_unknown_effect() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Enough time for the request to be sent.
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(socket);
            }
        });
        let failure = get_catalog(&address, LIMIT).await;
        assert_eq!(failure.effect, Effect::Unknown, "{failure:?}");
        assert!(failure.silent && !failure.is_timeout());
    }

    #[tokio::test]
    async fn calls_without_answer_end_at_their_deadline() {
        // The system accepts connections for a process that does not.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let failure = get_catalog(&address, Duration::from_millis(100)).await;
        assert_eq!(failure.effect, Effect::Unknown, "{failure:?}");
        assert!(failure.is_timeout());
        let expected = format!("{address} did not answer within 100ms");
        assert_eq!(failure.refusal.message, expected);
    }

    #[tokio::test]
    async fn deadline_of_the_transport_is_a_timeout() {
        let status = Status::cancelled(TimeoutExpired(()).to_string());
        let call = std::future::ready(Err::<Response<()>, _>(status));
        assert!(attempt("node 7", LIMIT, call).await.unwrap_err().is_timeout());
    }

    #[test]
    fn cancelled_call_means_unavailable_node() {
        let failure = FailedAttempt::from_status(&Status::cancelled("operation was canceled"));
        assert_eq!(failure.refusal.reason, Reason::Unavailable);
        assert_eq!(failure.effect, Effect::Unknown);
        // Of a node that answered.
        let status = Status::from(Refusal::new(Reason::ShuttingDown, "stopping"));
        let failure = FailedAttempt::from_status(&status);
        assert_eq!((failure.refusal.reason, failure.effect), (Reason::ShuttingDown, Effect::None));
    }
}
