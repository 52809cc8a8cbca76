//! The one place that outbound HTTP may go to.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::courier::HttpLimits;
use crate::error::{Error, Result};
use crate::signal::Cancel;

/// How often an exchange that waits looks whether it was cancelled.
const CANCEL_LOOK: Duration = Duration::from_millis(200);

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Lower case; IPv6 addresses in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL.
    pub fn of_url(text: &str) -> Result<Origin> {
        let refuse = |message: String| Error::Setting {
            name: "url",
            message,
        };
        let url = url::Url::parse(text).map_err(|error| {
            refuse(format!(
                "{error}; expected a URL such as http://127.0.0.1:6333"
            ))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(format!("`{}` is not http or https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                "user names and passwords do not belong in it; use an API key".into(),
            ));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(refuse("has no host".into()));
        };
        Ok(Origin {
            scheme: url.scheme().to_owned(),
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// True if a request to `uri` goes to this origin.
    fn admits(&self, uri: &http::Uri) -> bool {
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return false;
        };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        // An authority with user information, or with a port that is none, is never admitted.
        if authority.as_str().contains('@') {
            return false;
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() == authority.host() => default_port,
            None => return false,
        };
        scheme == self.scheme
            && authority.host().eq_ignore_ascii_case(&self.host)
            && port == self.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// What an instance may do with wasi-http.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// Nothing: every request is denied.
    Denied,
    /// Requests to one origin, within limits. Redirects come back as the answers they are;
    /// following one would be a request of its own, checked like any other.
    Only {
        origin: Origin,
        limits: HttpLimits,
        /// Largest response body of the requests that the call under way makes.
        response_bytes: u64,
        /// Longest wait for the first byte of a response body, after its head. A server makes one
        /// snapshot of a shard at a time, and lets others wait with the head of their answer.
        first_body_byte: Duration,
        /// Ends the exchanges.
        cancel: Cancel,
    },
}

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ),
    HttpError,
>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (limits, response_bytes, first_body_byte, cancel) = match self {
            Outbound::Only {
                origin,
                limits,
                response_bytes,
                first_body_byte,
                cancel,
            } if origin.admits(request.uri()) => (
                limits.clone(),
                *response_bytes,
                *first_body_byte,
                cancel.clone(),
            ),
            _ => {
                // Without the path: it may hold what logs should not.
                tracing::warn!(
                    scheme = request.uri().scheme_str(),
                    host = request.uri().host(),
                    "request to a place that is not granted"
                );
                return Box::new(async { Err(HttpError::HttpRequestDenied) });
            }
        };
        let options = bounded(options, &limits);
        let patience = Patience {
            first: first_body_byte,
            between: options.between_bytes_timeout.unwrap_or_default(),
            cancel,
        };
        Box::new(send(request, options, response_bytes, patience))
    }
}

/// The guest's own time-outs as far as they are tighter than the host's.
fn bounded(asked: Option<RequestOptions>, limits: &HttpLimits) -> RequestOptions {
    let asked = asked.unwrap_or_default();
    let tighter =
        |asked: Option<Duration>, limit: Duration| Some(asked.map_or(limit, |a| a.min(limit)));
    RequestOptions {
        connect_timeout: tighter(asked.connect_timeout, limits.connect),
        first_byte_timeout: tighter(asked.first_byte_timeout, limits.first_byte),
        between_bytes_timeout: tighter(asked.between_bytes_timeout, limits.between_bytes),
    }
}

async fn send(
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
    response_bytes: u64,
    patience: Patience,
) -> Sent {
    // Each exchange has a connection of its own. Said, because the server puts words behind the
    // head of a 304, which would be an error on a connection that is kept.
    request.headers_mut().insert(
        http::header::CONNECTION,
        http::HeaderValue::from_static("close"),
    );
    // The TLS handshake has no time-out of its own in Wasmtime.
    let total = options.connect_timeout.unwrap_or_default() * 2
        + options.first_byte_timeout.unwrap_or_default();
    let options = RequestOptions {
        // Each wait for a piece of the body is `patience`'s business.
        between_bytes_timeout: Some(patience.first.max(patience.between) + CANCEL_LOOK),
        ..options
    };
    let exchange = wasmtime_wasi_http::default_send_request(request, Some(options));
    let exchange = tokio::time::timeout(total, Box::pin(exchange));
    let (response, connection) = tokio::select! {
        answered = exchange => answered.map_err(|_| HttpError::ConnectionReadTimeout)??,
        () = cancelled(&patience.cancel) => return Err(HttpError::ConnectionTerminated),
    };
    let too_long = || HttpError::HttpResponseBodySize(Some(response_bytes));
    let declared = response
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > response_bytes) {
        return Err(too_long());
    }
    let response = response.map(|body| {
        let body = Patient {
            body: body.boxed_unsync(),
            patience,
            begun: false,
            waiting: None,
        };
        limit_body(body.boxed_unsync(), response_bytes)
    });
    let connection: Pin<Box<dyn Future<Output = Result<(), HttpError>> + Send>> =
        Box::pin(connection);
    Ok((response, Box::new(connection)))
}

/// Returns once it is cancelled.
async fn cancelled(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(CANCEL_LOOK).await;
    }
}

/// How long a body is waited for.
#[derive(Debug)]
struct Patience {
    /// For its first piece.
    first: Duration,
    /// For each one after that.
    between: Duration,
    cancel: Cancel,
}

/// A body that ends with an error when it keeps its reader waiting.
struct Patient {
    body: UnsyncBoxBody<bytes::Bytes, HttpError>,
    patience: Patience,
    /// Whether a piece has come.
    begun: bool,
    /// While a piece is waited for: since when, and the next look.
    waiting: Option<(tokio::time::Instant, Pin<Box<tokio::time::Sleep>>)>,
}

impl http_body::Body for Patient {
    type Data = bytes::Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = None;
            this.begun = true;
            return Poll::Ready(frame);
        }
        let limit = if this.begun {
            this.patience.between
        } else {
            this.patience.first
        };
        let look = CANCEL_LOOK.min(limit);
        let (since, next) = this.waiting.get_or_insert_with(|| {
            (
                tokio::time::Instant::now(),
                Box::pin(tokio::time::sleep(look)),
            )
        });
        while next.as_mut().poll(context).is_ready() {
            if this.patience.cancel.is_cancelled() {
                return Poll::Ready(Some(Err(HttpError::ConnectionTerminated)));
            }
            if since.elapsed() >= limit {
                return Poll::Ready(Some(Err(HttpError::ConnectionReadTimeout)));
            }
            next.as_mut().reset(tokio::time::Instant::now() + look);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn limit_body(
    body: UnsyncBoxBody<bytes::Bytes, HttpError>,
    limit: u64,
) -> UnsyncBoxBody<bytes::Bytes, HttpError> {
    let limited = http_body_util::Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    limited
        .map_err(move |error| match error.downcast::<HttpError>() {
            Ok(error) => *error,
            Err(_) => HttpError::HttpResponseBodySize(Some(limit)),
        })
        .boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admits(url: &str, request: &str) -> bool {
        let origin = Origin::of_url(url).unwrap();
        request
            .parse::<http::Uri>()
            .is_ok_and(|uri| origin.admits(&uri))
    }

    #[test]
    fn only_the_same_scheme_host_and_port() {
        let url = "http://qdrant.example:6333/prefix";
        assert!(admits(url, "http://qdrant.example:6333/collections/a"));
        assert!(admits(url, "http://QDRANT.example:6333/"));
        for other in [
            "https://qdrant.example:6333/",
            "http://qdrant.example/",
            "http://qdrant.example:6334/",
            "http://qdrant.example.evil:6333/",
            "http://evil/qdrant.example:6333/",
            "http://qdrant.example:6333@evil/",
            "http://user@qdrant.example:6333/",
            "http://qdrant.example.:6333/",
            "/collections/a",
        ] {
            assert!(!admits(url, other), "{other}");
        }
    }

    #[test]
    fn default_ports_and_addresses() {
        assert!(admits("https://a.example", "https://a.example:443/x"));
        assert!(admits("https://a.example:443", "https://a.example/x"));
        assert!(!admits("https://a.example", "https://a.example:80/x"));
        assert!(admits("http://[::1]:6333", "http://[::1]:6333/"));
        assert!(!admits("http://[::1]:6333", "http://[::2]:6333/"));
        assert!(admits("http://127.0.0.1:6333", "http://127.0.0.1:6333/"));
    }

    #[test]
    fn urls_that_cannot_be_a_server_are_refused() {
        for url in ["", "localhost:6333", "ftp://a", "http://", "http://u:p@a/"] {
            assert!(matches!(
                Origin::of_url(url),
                Err(Error::Setting { name: "url", .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn another_authority_is_never_admitted(authority in "[a-z0-9.@:\\[\\]%-]{1,30}") {
            let request = format!("http://{authority}/");
            if admits("http://a.example:6333", &request) {
                prop_assert_eq!(authority, "a.example:6333");
            }
        }
    }

    /// A body of the given pieces that never ends.
    struct Stalling(Vec<&'static [u8]>);

    impl http_body::Body for Stalling {
        type Data = bytes::Bytes;
        type Error = HttpError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, HttpError>>> {
            match self.0.pop() {
                Some(piece) => Poll::Ready(Some(Ok(http_body::Frame::data(piece.into())))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn the_first_piece_of_a_body_is_waited_for_longer_than_the_others() {
        let hour = Duration::from_secs(3600);
        let patient = |pieces: Vec<&'static [u8]>, first, between, cancel| Patient {
            body: Stalling(pieces).boxed_unsync(),
            patience: Patience {
                first,
                between,
                cancel,
            },
            begun: false,
            waiting: None,
        };
        let piece = || vec![b"piece".as_slice()];
        let ended = patient(vec![], Duration::ZERO, hour, Cancel::new()).collect();
        assert!(matches!(ended.await, Err(HttpError::ConnectionReadTimeout)));
        let ended = patient(piece(), hour, Duration::ZERO, Cancel::new()).collect();
        assert!(matches!(ended.await, Err(HttpError::ConnectionReadTimeout)));
        let waits = patient(vec![], hour, Duration::ZERO, Cancel::new()).collect();
        let while_waiting = tokio::time::timeout(CANCEL_LOOK * 2, waits).await;
        assert!(while_waiting.is_err());
        let cancel = Cancel::new();
        cancel.cancel();
        let ended = patient(vec![], hour, hour, cancel).collect();
        assert!(matches!(ended.await, Err(HttpError::ConnectionTerminated)));
    }

    #[tokio::test]
    async fn bodies_past_the_limit_are_cut_with_an_error() {
        let body = |bytes: usize| {
            http_body_util::Full::new(bytes::Bytes::from(vec![0; bytes]))
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        assert_eq!(
            limit_body(body(10), 10)
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len(),
            10
        );
        assert!(matches!(
            limit_body(body(11), 10).collect().await,
            Err(HttpError::HttpResponseBodySize(Some(10)))
        ));
    }

    #[tokio::test]
    async fn an_instance_without_a_grant_sends_nothing() {
        let request = http::Request::get("http://127.0.0.1:1/")
            .body(
                http_body_util::Empty::new()
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            )
            .unwrap();
        let sent = Outbound::Denied.send_request(request, None, Box::new(async { Ok(()) }));
        assert!(matches!(
            Pin::from(sent).await,
            Err(HttpError::HttpRequestDenied)
        ));
    }
}
