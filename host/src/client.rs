//! The HTTP client: keeps connections to one origin and uses them again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use wasmtime_wasi_http::WasiBody;

use crate::compression::Compression;
use crate::connector::{Connector, Used};
use crate::device;
use crate::error::Result;
use crate::no_answer::{self, NoAnswer, Peer};
use crate::origin::{Origin, server_url};
use crate::proxy::Proxy;
use crate::tls::{TlsSettings, client_config};

/// How long a connection is kept without a request. Qdrant closes one after 5 s (1.19,
/// `http_keep_alive_timeout_sec`), and what is sent at that very moment is lost.
const IDLE: Duration = Duration::from_secs(4);

/// A connection that ended without an answer after as long a rest was closed for being idle: some
/// proxies close it sooner than Qdrant. Sooner than this it is a failure like others.
const RESTED: Duration = Duration::from_secs(1);

/// A courier makes one request at a time; another connection is kept while a download is under way.
const KEPT: usize = 2;

/// Sends requests to one origin.
pub(crate) struct Client {
    http: Mutex<legacy::Client<Connector, WasiBody>>,
    connector: Connector,
    peer: Peer,
    /// For requests that a proxy passes on, rather than connections.
    proxy_authorization: Option<http::HeaderValue>,
    compression: Option<Compression>,
    rested: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the server at `url`. `connect`: longest wait for a connection.
    ///
    /// Errors: [`crate::Error::Setting`].
    pub(crate) fn new(url: &str, tls: &TlsSettings, connect: Duration) -> Result<Client> {
        let url = server_url(url)?;
        let proxy = Proxy::of_environment(&url)?;
        let origin = Origin::of(&url)?;
        let secured = match origin.is_secure() {
            true => Some(client_config(tls)?),
            false => None,
        };
        let peer = Peer {
            server: origin.authority(),
            proxy: proxy.as_ref().map(|proxy| proxy.name().to_owned()),
        };
        let proxy_authorization = match origin.is_secure() {
            true => None,
            false => proxy.as_ref().and_then(|proxy| proxy.authorization.clone()),
        };
        let connector = Connector::new(&origin, secured, proxy, connect)?;
        Ok(Client {
            http: Mutex::new(pool(connector.clone())),
            connector,
            peer,
            proxy_authorization,
            compression: None,
            rested: RESTED,
        })
    }

    /// Uses no connection again that there is: behind a balancer, the next one may lead elsewhere.
    pub(crate) fn reconnect(&self) {
        let fresh = pool(self.connector.clone());
        *self.http.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// With request bodies that are compressed, if `compress`.
    pub(crate) fn compressing(self, compress: bool) -> Client {
        Client {
            compression: compress.then(Compression::default),
            ..self
        }
    }

    /// Sends a request and waits for the head of the answer. One that goes out compressed, and comes
    /// to an answer that may be about that, goes out again as it is.
    pub(crate) async fn send(
        &self,
        request: http::Request<WasiBody>,
    ) -> Result<http::Response<Incoming>, NoAnswer> {
        let Some(compression) = self
            .compression
            .as_ref()
            .filter(|compression| compression.is_for(request.headers()))
        else {
            return self.send_plain(request).await;
        };
        let (mut parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(_) => return Err(no_answer::cut()),
        };
        let with =
            |parts: http::request::Parts, body: Bytes| http::Request::from_parts(parts, full(body));
        let plain = parts.clone();
        if let Some((headers, packed)) = compression.pack(&parts.headers, &body) {
            parts.headers = headers;
            let answer = self.send_plain(with(parts, packed)).await?;
            if !Compression::may_be_meant(answer.status()) {
                return Ok(answer);
            }
        } else {
            return self.send_plain(with(plain, body)).await;
        }
        let answer = self.send_plain(with(plain, body)).await?;
        if answer.status().is_success() {
            tracing::debug!("the server reads no compressed body");
            compression.give_up();
        }
        Ok(answer)
    }

    /// A request that finds its connection closed before it is on it goes out on another. So does one
    /// that only reads, once, if the connection had rested and ended without an answer: it was closed
    /// for being idle. Of one that writes, nobody knows then whether it was carried out.
    async fn send_plain(
        &self,
        mut request: http::Request<WasiBody>,
    ) -> Result<http::Response<Incoming>, NoAnswer> {
        if let Some(authorization) = &self.proxy_authorization {
            request
                .headers_mut()
                .insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        // Without a length, a GET has no body, whatever the component's stream is about to say.
        let headers = request.headers();
        let reads = request.method() == http::Method::GET
            && !headers.contains_key(CONTENT_LENGTH)
            && !headers.contains_key(TRANSFER_ENCODING);
        let again = reads.then(|| {
            let mut again = http::Request::new(empty());
            *again.method_mut() = request.method().clone();
            *again.uri_mut() = request.uri().clone();
            *again.headers_mut() = request.headers().clone();
            again
        });
        if reads {
            request = request.map(|_| empty());
        }
        let now = Instant::now();
        let answered = match (self.send_once(request).await, again) {
            (Err(error), Some(again)) if was_closed_idle(&error, now, self.rested) => self
                .send_once(again)
                .await
                .map_err(|error| no_answer::of_client(&error, &self.peer)),
            (outcome, _) => outcome.map_err(|error| no_answer::of_client(&error, &self.peer)),
        };
        match answered {
            Ok(response) if device::is_own(response.headers()) => Err(no_answer::itself()),
            answered => answered,
        }
    }

    async fn send_once(
        &self,
        mut request: http::Request<WasiBody>,
    ) -> Result<http::Response<Incoming>, legacy::Error> {
        let connection = capture_connection(&mut request);
        let http = self
            .http
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let response = http.request(request).await?;
        if let Some(connected) = &*connection.connection_metadata() {
            if response.status() == http::StatusCode::NOT_MODIFIED {
                // The server sends words behind it, without their length: whatever comes on this
                // connection now is no answer (Qdrant 1.19).
                connected.poison();
            }
            if let Some(used) = used(connected) {
                used.now();
            }
        }
        Ok(response)
    }

    /// Why the body of an answer broke off.
    pub(crate) fn broken_body(&self, error: &hyper::Error) -> NoAnswer {
        no_answer::of_exchange(error, &self.peer)
    }
}

fn pool(connector: Connector) -> legacy::Client<Connector, WasiBody> {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(KEPT)
        .build(connector)
}

fn full(body: Bytes) -> WasiBody {
    Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn empty() -> WasiBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn used(connected: &Connected) -> Option<Used> {
    let mut extras = http::Extensions::new();
    connected.get_extras(&mut extras);
    extras.remove::<Used>()
}

/// True if the connection had an answer before, rested until `sent`, and ended without another.
fn was_closed_idle(error: &legacy::Error, sent: Instant, rested: Duration) -> bool {
    let last = error
        .connect_info()
        .and_then(used)
        .and_then(|used| used.last());
    if last.is_none_or(|last| sent.saturating_duration_since(last) < rested) {
        return false;
    }
    let mut at = std::error::Error::source(error);
    while let Some(cause) = at {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return error.is_incomplete_message() || error.is_closed() || is_reset(error);
        }
        at = cause.source();
    }
    false
}

fn is_reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|error| {
            matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// What is left of a server: which requests come on which connection, and what is answered.
    struct Server(TcpListener);

    impl Server {
        async fn start() -> (Server, Client) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let tls = TlsSettings::default();
            let client = Client::new(&url, &tls, Duration::from_secs(60)).unwrap();
            (Server(listener), client)
        }

        async fn connection(&self) -> TcpStream {
            self.0.accept().await.unwrap().0
        }

        fn request(&self, method: http::Method, body: &'static str) -> http::Request<WasiBody> {
            let request = http::Request::builder()
                .method(&method)
                .uri(format!("http://{}/c", self.0.local_addr().unwrap()));
            let body = match method {
                http::Method::GET => Unfinished.boxed_unsync(),
                _ => http_body_util::Full::new(bytes::Bytes::from_static(body.as_bytes()))
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            };
            request.body(body).unwrap()
        }
    }

    /// The body of a component that has not come to saying that there is none.
    struct Unfinished;

    impl http_body::Body for Unfinished {
        type Data = bytes::Bytes;
        type Error = wasmtime_wasi_http::Error;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    async fn head(connection: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn answer(connection: &mut TcpStream, text: &str) {
        connection.write_all(text.as_bytes()).await.unwrap();
    }

    async fn body(response: http::Response<Incoming>) -> bytes::Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    #[tokio::test]
    async fn one_connection_has_many_requests() {
        let (server, client) = Server::start().await;
        let served = async {
            let mut connection = server.connection().await;
            for _ in 0..10 {
                assert!(
                    head(&mut connection)
                        .await
                        .starts_with("GET /c HTTP/1.1\r\n")
                );
                answer(&mut connection, OK).await;
            }
        };
        let asked = async {
            for _ in 0..10 {
                let request = server.request(http::Method::GET, "");
                let response = client.send(request).await.unwrap();
                assert_eq!(body(response).await, "ok");
            }
        };
        tokio::join!(served, asked);
    }

    #[tokio::test]
    async fn words_behind_a_304_are_no_answer_to_anything() {
        // In one piece with the head, or behind it.
        for together in [true, false] {
            let (server, client) = Server::start().await;
            let (unchanged, words) = ("HTTP/1.1 304 Not Modified\r\n\r\n", "{\"status\":\"x\"}");
            let served = async {
                let mut first = server.connection().await;
                head(&mut first).await;
                if together {
                    answer(&mut first, &format!("{unchanged}{words}")).await;
                } else {
                    answer(&mut first, unchanged).await;
                }
                let mut second = server.connection().await;
                head(&mut second).await;
                // The first may be closed by now.
                let _ = first.write_all(words.as_bytes()).await;
                answer(&mut second, OK).await;
            };
            let asked = async {
                let request = server.request(http::Method::POST, "{}");
                let response = client.send(request).await.unwrap();
                assert_eq!(response.status(), http::StatusCode::NOT_MODIFIED);
                assert_eq!(body(response).await, "");
                let request = server.request(http::Method::POST, "{}");
                let response = client.send(request).await.unwrap();
                assert_eq!(body(response).await, "ok");
            };
            tokio::join!(served, asked);
        }
    }

    #[tokio::test]
    async fn a_read_on_a_connection_that_was_closed_for_being_idle_goes_out_again() {
        let (server, mut client) = Server::start().await;
        client.rested = Duration::ZERO;
        let served = async {
            let mut connection = server.connection().await;
            head(&mut connection).await;
            answer(&mut connection, OK).await;
            head(&mut connection).await;
            drop(connection);
            let mut connection = server.connection().await;
            head(&mut connection).await;
            answer(&mut connection, OK).await;
            // Of this one nobody knows whether it was carried out.
            assert!(head(&mut connection).await.starts_with("PUT"));
        };
        let asked = async {
            for _ in 0..2 {
                let request = server.request(http::Method::GET, "");
                let response = client.send(request).await.unwrap();
                assert_eq!(body(response).await, "ok");
            }
            let request = server.request(http::Method::PUT, "{}");
            let cut = client.send(request).await.unwrap_err();
            assert_eq!(cut.words, "the connection was cut");
        };
        tokio::join!(served, asked);
    }

    #[tokio::test]
    async fn a_connection_that_was_used_a_moment_ago_and_breaks_is_a_failure() {
        let (server, client) = Server::start().await;
        let served = async {
            let mut connection = server.connection().await;
            head(&mut connection).await;
            answer(&mut connection, OK).await;
            head(&mut connection).await;
        };
        let asked = async {
            let request = server.request(http::Method::GET, "");
            assert_eq!(body(client.send(request).await.unwrap()).await, "ok");
            let request = server.request(http::Method::GET, "");
            let cut = client.send(request).await.unwrap_err();
            assert_eq!(cut.words, "the connection was cut");
        };
        tokio::join!(served, asked);
    }

    #[tokio::test]
    async fn a_server_that_speaks_something_else_is_told_apart() {
        for (said, words) in [
            ("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{46}", "speaks TLS"),
            ("SSH-2.0-OpenSSH_9.9\r\n", "is not HTTP"),
            ("", "the connection was cut"),
        ] {
            let (server, client) = Server::start().await;
            let served = async {
                let mut connection = server.connection().await;
                head(&mut connection).await;
                answer(&mut connection, said).await;
            };
            let request = server.request(http::Method::GET, "");
            let ((), outcome) = tokio::join!(served, client.send(request));
            let told = outcome.unwrap_err();
            assert!(told.words.contains(words), "{said:?}: {}", told.words);
        }
    }
}
