//! The sockets: how many connections there are, how long each may take for what, and how it ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::Error;
use crate::load::Load;

/// Most bytes that are read ahead of a connection, which bounds the head of a request too.
const BUFFER: usize = 64 * 1024;

/// How long a connection is kept that is only told that there are too many.
const TURNED_AWAY_TIME: Duration = Duration::from_secs(2);

/// Most bytes of its request that are read.
const TURNED_AWAY_BYTES: usize = 1024 * 1024;

/// Pause after a failure to accept a connection, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long, after the wish to stop, a connection is kept on which nothing is being done: its answer
/// may still be on the way.
const LINGER: Duration = Duration::from_secs(1);

/// Serves until `shutdown` resolves, then stops to accept, lets running requests finish, and
/// returns. `load` is the one of the router's options.
///
/// # Errors
/// None at present; a failure to accept a connection is logged, and there is another try.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    load: Arc<Load>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                take(stream, &router, &load, &stopping, &mut connections);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// True if the client is at fault, not this process.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

fn take(
    stream: TcpStream,
    router: &Router,
    load: &Arc<Load>,
    stopping: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    if let Ok(place) = Arc::clone(&load.connections).try_acquire_owned() {
        let (router, load, stopping) = (router.clone(), Arc::clone(load), stopping.clone());
        connections.spawn(async move {
            answer(stream, router, &load, stopping).await;
            drop(place);
        });
        return;
    }
    load.counts.connections.fetch_add(1, Ordering::Relaxed);
    if let Ok(place) = Arc::clone(&load.turned_away).try_acquire_owned() {
        let most = load.limits.connections;
        connections.spawn(async move {
            let told = tokio::time::timeout(TURNED_AWAY_TIME, turn_away(stream, most));
            let _ = told.await;
            drop(place);
        });
    }
}

/// Requests on one connection, until it ends.
async fn answer(
    stream: TcpStream,
    router: Router,
    load: &Load,
    mut stopping: watch::Receiver<bool>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(load.limits.answer_time));
    let at_work = AtomicUsize::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let begun = Begun::of(&at_work);
        let answered = router.clone().oneshot(request.map(Body::new));
        async move {
            let response = answered.await;
            drop(begun);
            response
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // It begins with the connection, and again with the end of each answer.
            .header_read_timeout(load.limits.head_time)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    loop {
        match tokio::time::timeout(LINGER, connection.as_mut()).await {
            Ok(ended) => return log(ended),
            Err(_) if at_work.load(Ordering::Relaxed) == 0 => return,
            Err(_) => {}
        }
    }
}

/// A request that is being worked on.
struct Begun<'a>(&'a AtomicUsize);

impl<'a> Begun<'a> {
    fn of(at_work: &'a AtomicUsize) -> Self {
        at_work.fetch_add(1, Ordering::Relaxed);
        Self(at_work)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let why = std::error::Error::source(&error).map(ToString::to_string);
        tracing::debug!(%error, why, "a connection ended");
    }
}

/// One answer: that there are too many connections.
async fn turn_away(stream: TcpStream, most: usize) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let mut body = request.into_body();
        let mut come = 0;
        // A client that is still sending does not see the answer.
        while come < TURNED_AWAY_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            come += frame.data_ref().map_or(0, |data| data.len());
        }
        let error = Error::Overloaded(format!(
            "{most} connections are open already, the most that may"
        ));
        Ok::<Response<Body>, Infallible>(error.into_response())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    log(connection.await);
}
