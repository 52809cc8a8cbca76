//! The double's sockets: listening, refusing, and one exchange after the other.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::exchange::Log;
use crate::faults::Request as Scripted;
use crate::native::NativeBackend;
use crate::shaping::Shape;
use crate::stray::{Connection, Stray};
use crate::{Fault, Faults, Reply, Results};

/// Bodies above this are not read at all, whatever limit the API has.
const READ_LIMIT: usize = 256 * 1024 * 1024;

pub(super) struct Shared {
    pub(super) backend: Arc<NativeBackend>,
    pub(super) faults: Faults,
    pub(super) log: Log,
    router: Router,
    api_key: Option<String>,
    refuse: AtomicU32,
    /// Bytes a second; 0 for no limit.
    snapshot_rate: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        backend: Arc<NativeBackend>,
        router: Router,
        api_key: Option<String>,
    ) -> Self {
        Self {
            backend,
            router,
            api_key,
            faults: Faults::default(),
            log: Log::default(),
            refuse: AtomicU32::new(0),
            snapshot_rate: AtomicU64::new(0),
        }
    }

    pub(super) fn refuse_connections(&self, count: u32) {
        self.refuse.store(count, Ordering::SeqCst);
    }

    pub(super) fn throttle_snapshots(&self, bytes_per_second: Option<u64>) {
        self.snapshot_rate
            .store(bytes_per_second.unwrap_or(0), Ordering::SeqCst);
    }
}

/// How often, and how far apart, a port is asked for that is taken.
const BIND_ATTEMPTS: u32 = 100;
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// The port, listening or only reserved. A bound socket that does not listen refuses connections
/// and keeps others from taking the port.
#[derive(Debug)]
pub(super) enum Listening {
    Reserved(TcpSocket),
    Serving {
        accepting: tokio::task::JoinHandle<()>,
        /// Disconnected when `accepting` and all connections are gone and their sockets closed.
        gone: mpsc::Receiver<Infallible>,
        address: SocketAddr,
    },
    /// Between two states, or after a failed step.
    Closed,
}

impl Listening {
    pub(super) fn reserve(runtime: &Runtime, address: SocketAddr) -> io::Result<Self> {
        let _in_runtime = runtime.enter();
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // Connections of the last listener may linger on the port.
        socket.set_reuseaddr(true)?;
        // For a moment a connection of somebody else may have the port as its own.
        let mut attempts = BIND_ATTEMPTS;
        loop {
            match socket.bind(address) {
                Ok(()) => return Ok(Self::Reserved(socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {
                    attempts -= 1;
                    std::thread::sleep(BIND_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Reserved(socket) => socket.local_addr(),
            Self::Serving { address, .. } => Ok(*address),
            Self::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn resume(&mut self, runtime: &Runtime, shared: &Arc<Shared>) -> io::Result<()> {
        let socket = match std::mem::replace(self, Self::Closed) {
            Self::Reserved(socket) => socket,
            other => {
                *self = other;
                return Ok(());
            }
        };
        let _in_runtime = runtime.enter();
        let listener = socket.listen(1024)?;
        let address = listener.local_addr()?;
        let (running, gone) = mpsc::channel();
        let shared = Arc::clone(shared);
        let accepting = runtime.spawn(async move {
            accept(listener, shared, running).await;
        });
        *self = Self::Serving {
            accepting,
            gone,
            address,
        };
        Ok(())
    }

    pub(super) fn stop(&mut self, runtime: &Runtime, address: SocketAddr) -> io::Result<()> {
        if let Self::Reserved(_) = self {
            return Ok(());
        }
        if let Self::Serving {
            accepting, gone, ..
        } = std::mem::replace(self, Self::Closed)
        {
            accepting.abort();
            // Nothing is ever sent; this waits for the tasks to be dropped.
            let _ = gone.recv();
        }
        *self = Self::reserve(runtime, address)?;
        Ok(())
    }
}

/// Accepts until dropped; connections are dropped with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>, running: mpsc::Sender<Infallible>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A failed accept concerns that connection only.
                let Ok((stream, _)) = accepted else { continue };
                let refused = shared.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
                if refused.is_ok() {
                    let _ = stream.set_zero_linger();
                    continue;
                }
                let connection = converse(stream, Arc::clone(&shared));
                let running = running.clone();
                connections.spawn(async move {
                    connection.await;
                    drop(running);
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let stray = Stray::default();
    let stream = Connection::new(TokioIo::new(stream), stray.clone());
    let service = service_fn(move |request| {
        let (shared, stray) = (Arc::clone(&shared), stray.clone());
        async move { Ok::<_, Dropped>(without_body(exchange(shared, request).await?, &stray).await) }
    });
    // The client went away, or the script closed the connection: either is as intended.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(stream, service)
        .await;
}

/// Takes the body of an answer that has none by its status, to be sent behind it as the server does.
async fn without_body(response: Response, stray: &Stray) -> Response {
    if response.status() != StatusCode::NOT_MODIFIED {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    stray.put(whole(body).await);
    Response::from_parts(parts, Body::empty())
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the script drops this exchange")]
struct Dropped;

async fn exchange(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response, Dropped> {
    let (parts, mut body) = request.into_parts();
    let path_and_query = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let announced = body.size_hint().exact();
    let early = shared.faults.strike_early(&Scripted {
        method: parts.method.as_str(),
        path_and_query,
        body: None,
        text: None,
        body_bytes: announced.map_or(usize::MAX, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        }),
        chunked: announced.is_none(),
        compressed: parts.headers.contains_key(header::CONTENT_ENCODING),
    });
    if let Some(Fault::Early { reply, after }) = &early {
        let read = read_some(&mut body, *after).await;
        let key = shared.api_key.as_deref();
        let number = shared.log.arrived(&parts, key, None, read, early.clone());
        shared
            .log
            .update(number, |exchange| exchange.status = Some(reply.status));
        let reply = reply.with_key(presented_key(&parts));
        // The rest of the body is never read, so that closing resets the connection.
        return Ok(sent(&reply.header("connection", "close")));
    }
    let Ok(body) = Limited::new(body, READ_LIMIT).collect().await else {
        return Err(Dropped);
    };
    let body = body.to_bytes();
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    let fault = shared.faults.strike(&Scripted {
        method: parts.method.as_str(),
        path_and_query,
        body: json.as_ref(),
        text: std::str::from_utf8(&body).ok(),
        body_bytes: body.len(),
        chunked: announced.is_none(),
        compressed: parts.headers.contains_key(header::CONTENT_ENCODING),
    });
    let number = shared.log.arrived(
        &parts,
        shared.api_key.as_deref(),
        json.as_ref(),
        body.len(),
        fault.clone(),
    );
    drop(json);
    let is_snapshot = is_snapshot_download(&parts);
    let result = suffer(&shared, number, parts, body, fault.as_ref()).await;
    let status = result
        .as_ref()
        .ok()
        .map(|response| response.status().as_u16());
    shared
        .log
        .update(number, |exchange| exchange.status = status);
    let mut shape = Shape::of(fault.as_ref());
    let rate = shared.snapshot_rate.load(Ordering::SeqCst);
    if is_snapshot && rate > 0 {
        shape.bytes_per_second.get_or_insert(rate);
    }
    result.map(|response| shape.apply(response))
}

/// Does what the fault says up to the point where there is an answer or none.
async fn suffer(
    shared: &Shared,
    number: u64,
    mut parts: Parts,
    body: Bytes,
    fault: Option<&Fault>,
) -> Result<Response, Dropped> {
    if let Some(Fault::OtherRange { from }) = fault
        && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
    {
        parts.headers.insert(header::RANGE, range);
    }
    if let Some(Fault::Delay(delay)) = fault {
        tokio::time::sleep(*delay).await;
    }
    if let Some(Fault::Answer {
        status,
        message,
        retry_after,
        plain_text,
    }) = fault
    {
        let header = retry_after.map(crate::RetryAfter::header);
        return Ok(scripted_answer(*status, message, header, *plain_text));
    }
    let key = presented_key(&parts).to_owned();
    match fault {
        Some(Fault::Reply(reply)) => return Ok(sent(&reply.with_key(&key))),
        Some(Fault::Silence) => return std::future::pending().await,
        _ => {}
    }
    if fault.is_some_and(|fault| !fault.applies()) {
        return Err(Dropped);
    }
    if fault == Some(&Fault::Duplicate) {
        pass_on(shared, number, parts.clone(), body.clone()).await;
    }
    let response = pass_on(shared, number, parts, body).await;
    match fault {
        Some(Fault::DropAnswer) => Err(Dropped),
        Some(Fault::SilenceAfter) => std::future::pending().await,
        Some(Fault::ReplyAfter(reply)) => Ok(sent(&reply.with_key(&key))),
        Some(Fault::Results(results)) => Ok(with_results(response, results).await),
        Some(Fault::Gzip) => Ok(compressed(response).await),
        _ => Ok(response),
    }
}

/// Reads the first bytes of a body. How many there were.
async fn read_some(body: &mut Incoming, bytes: u64) -> usize {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut read = 0;
    while read < bytes {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
    read
}

fn presented_key(parts: &Parts) -> &str {
    let key = parts.headers.get("api-key");
    key.and_then(|key| key.to_str().ok()).unwrap_or_default()
}

fn sent(reply: &Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, reply.body.clone()).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.insert(name, value);
        }
    }
    response
}

async fn with_results(response: Response, results: &Results) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = whole(body).await;
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(mut answer) => {
            results.change(&mut answer);
            answer.to_string().into()
        }
        Err(_) => body,
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

async fn compressed(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(&whole(body).await);
    let body = encoder.finish().unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::from(body))
}

async fn whole(body: Body) -> Bytes {
    axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default()
}

async fn pass_on(shared: &Shared, number: u64, parts: Parts, body: Bytes) -> Response {
    let request = Request::from_parts(parts, Body::from(body));
    let Ok(response) = shared.router.clone().oneshot(request).await;
    shared.log.update(number, |exchange| exchange.applied += 1);
    response
}

fn scripted_answer(
    status: u16,
    message: &str,
    retry_after: Option<String>,
    plain_text: bool,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = if plain_text {
        (status, message.to_owned()).into_response()
    } else {
        let body = axum::Json(json!({"status": {"error": message}, "time": 0.0}));
        (status, body).into_response()
    };
    if let Some(value) = retry_after.and_then(|value| HeaderValue::from_str(&value).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn is_snapshot_download(parts: &Parts) -> bool {
    let path = parts.uri.path();
    match parts.method.as_str() {
        "GET" => path.ends_with("/snapshot") || path.contains("/snapshots/"),
        _ => path.ends_with("/snapshot/partial/create"),
    }
}
