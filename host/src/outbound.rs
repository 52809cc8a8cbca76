//! What an instance may do with `wasi:http`, and each exchange within its limits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::cancel::Cancel;
use crate::client::Client;
use crate::http_limits::HttpLimits;
use crate::no_answer::{self, NoAnswer};
use crate::origin::Origin;

/// How often a body that is waited for looks whether it was cancelled.
const CANCEL_LOOK: Duration = Duration::from_millis(200);

/// What an instance may do with wasi-http.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// Nothing: every request is denied.
    Denied,
    /// Requests to one origin, within limits. Redirects come back as the answers they are;
    /// following one would be a request of its own, checked like any other.
    Only {
        origin: Origin,
        client: Arc<Client>,
        /// Why the last request had no answer.
        unanswered: Unanswered,
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

/// The last request, if it had no answer, and why: in words that `wasi:http` cannot carry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unanswered(Arc<Mutex<Option<(String, String, String)>>>);

impl Unanswered {
    /// A request that begins, or ended like this.
    fn set(&self, method: &http::Method, path: &str, words: Option<String>) {
        let last = words.map(|words| (method.to_string(), path.to_owned(), words));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Why the request that the component calls `METHOD /path`, without the prefix of the server's
    /// URL, had no answer, if it was the last.
    pub(crate) fn words(&self, request: &str) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, path, words) = last.as_ref()?;
        let (asked, below) = request.split_once(' ')?;
        (method == asked && path.ends_with(below)).then(|| words.clone())
    }
}

type Connection = Box<dyn Future<Output = Result<(), HttpError>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Connection), HttpError>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (client, unanswered, limits, response_bytes, first_body_byte, cancel) = match self {
            Outbound::Only {
                origin,
                client,
                unanswered,
                limits,
                response_bytes,
                first_body_byte,
                cancel,
            } if origin.admits(request.uri()) => (
                Arc::clone(client),
                unanswered.clone(),
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
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Box::new(async move {
            unanswered.set(&method, &path, None);
            let answered = send(&client, request, options, response_bytes, patience).await;
            match answered {
                Ok(response) => {
                    // The client sees to its connections itself.
                    let connection: Connection = Box::new(async { Ok(()) });
                    Ok((response, connection))
                }
                Err(NoAnswer { code, words }) => {
                    tracing::debug!(%method, path, "no answer: {words}");
                    unanswered.set(&method, &path, Some(words));
                    Err(code)
                }
            }
        })
    }

    /// The client says it, in the form that the connection at hand needs.
    fn set_host_header(&mut self) -> bool {
        false
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
    client: &Arc<Client>,
    request: http::Request<WasiBody>,
    options: RequestOptions,
    response_bytes: u64,
    patience: Patience,
) -> Result<http::Response<WasiBody>, NoAnswer> {
    // The client limits the time to a connection, and says so; this is for all of it.
    let total = options.connect_timeout.unwrap_or_default() * 2
        + options.first_byte_timeout.unwrap_or_default();
    let exchange = tokio::time::timeout(total, Box::pin(client.send(request)));
    let response = tokio::select! {
        answered = exchange => answered.unwrap_or_else(|_| Err(no_answer::silence()))?,
        () = patience.cancel.cancelled() => return Err(no_answer::cut()),
    };
    let declared = response
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > response_bytes) {
        return Err(NoAnswer {
            code: HttpError::HttpResponseBodySize(Some(response_bytes)),
            words: format!("the answer is longer than {response_bytes} bytes"),
        });
    }
    let client = Arc::clone(client);
    Ok(response.map(|body| {
        let body = body.map_err(move |error| client.broken_body(&error).code);
        let body = Patient {
            body: body.boxed_unsync(),
            patience,
            begun: false,
            waiting: None,
        };
        limit_body(body.boxed_unsync(), response_bytes)
    }))
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

    #[test]
    fn words_are_for_the_request_that_had_no_answer() {
        let unanswered = Unanswered::default();
        let (method, path) = (http::Method::GET, "/prefix/collections/c");
        unanswered.set(&method, path, Some("words".to_owned()));
        let words = unanswered.words("GET /collections/c");
        assert_eq!(words.as_deref(), Some("words"));
        assert_eq!(unanswered.words("PUT /collections/c"), None);
        assert_eq!(unanswered.words("GET /collections/d"), None);
        unanswered.set(&method, path, None);
        assert_eq!(unanswered.words("GET /collections/c"), None);
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
