//! What connections pass on their way to a server: its TLS, a proxy, or nothing but a count.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What a gateway does with a connection.
#[derive(Clone)]
pub enum GatewayKind {
    /// Passes it on.
    Relay,
    /// Passes on what is in it.
    Tls(Arc<ServerConfig>),
    /// Takes HTTP/2 from it, and passes the requests on.
    Http2(Arc<ServerConfig>),
    /// Passes each connection on to the next of several servers.
    Balancer(Vec<SocketAddr>),
    /// Is an HTTP proxy whose every way leads to the server; it wants this `proxy-authorization`.
    Proxy(Option<&'static str>),
}

/// A running gateway; it ends when dropped, and its connections with it.
pub struct Gateway {
    address: SocketAddr,
    counts: Arc<Counts>,
    close: watch::Sender<()>,
    runtime: Option<Runtime>,
}

struct Counts {
    accepted: AtomicUsize,
    /// Requests that came by HTTP/2, or to a proxy.
    requests: AtomicUsize,
    open: watch::Sender<usize>,
}

impl Gateway {
    /// Stands in front of `server`.
    pub fn start(server: SocketAddr, kind: GatewayKind) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let counts = Arc::new(Counts {
            accepted: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            open: watch::channel(0).0,
        });
        let close = watch::channel(()).0;
        let (counting, closing) = (Arc::clone(&counts), close.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counting.accepted.fetch_add(1, Ordering::SeqCst);
                let server = match &kind {
                    GatewayKind::Balancer(servers) => servers[number % servers.len()],
                    _ => server,
                };
                counting.open.send_modify(|open| *open += 1);
                let (kind, counts) = (kind.clone(), Arc::clone(&counting));
                let closing = closing.subscribe();
                tokio::spawn(async move {
                    // A connection that breaks is the client's business.
                    let _ = pass(stream, server, kind, &counts, closing).await;
                    counts.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            address,
            counts,
            close,
            runtime: Some(runtime),
        }
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// How many requests came by HTTP/2, or to a proxy.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Closes all connections, as a server closes those that are idle, and waits until the client
    /// has closed them too.
    pub fn close_idle(&self) {
        self.close.send_replace(());
        let mut open = self.counts.open.subscribe();
        let runtime = self.runtime.as_ref().expect("it runs");
        let closed = runtime.block_on(open.wait_for(|open| *open == 0));
        closed.expect("it counts");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    kind: GatewayKind,
    counts: &Arc<Counts>,
    closing: watch::Receiver<()>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    match kind {
        GatewayKind::Relay | GatewayKind::Balancer(_) => relay(client, server, b"", closing).await,
        GatewayKind::Tls(config) => {
            let client = TlsAcceptor::from(config).accept(client).await?;
            relay(client, server, b"", closing).await
        }
        GatewayKind::Http2(config) => {
            let client = TlsAcceptor::from(config).accept(client).await?;
            http2(client, server, Arc::clone(counts)).await;
            Ok(())
        }
        GatewayKind::Proxy(wanted) => {
            let head = head(&mut client).await?;
            let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
            counts.requests.fetch_add(1, Ordering::SeqCst);
            if let Some(wanted) = wanted
                && !text.contains(&format!(
                    "proxy-authorization: {}",
                    wanted.to_ascii_lowercase()
                ))
            {
                let refused =
                    "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                return client.write_all(refused.as_bytes()).await;
            }
            if text.starts_with("connect ") {
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                return relay(client, server, b"", closing).await;
            }
            // Requests that are the proxy's to pass on name the server in full.
            assert!(text.contains(" http://"), "{text}");
            relay(client, server, &head, closing).await
        }
    }
}

async fn head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// Passes bytes on, after `first`, until either side ends, or this one closes.
async fn relay(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
    first: &[u8],
    mut closing: watch::Receiver<()>,
) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(server).await?;
    upstream.set_nodelay(true)?;
    upstream.write_all(first).await?;
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut upstream) => copied.map(drop),
        _ = closing.changed() => {
            client.shutdown().await?;
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.map(drop)
        }
    }
}

/// Serves HTTP/2; each request goes to the server as HTTP/1.1.
async fn http2(
    client: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: SocketAddr,
    counts: Arc<Counts>,
) {
    let upstream: legacy::Client<_, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (upstream, counts) = (upstream.clone(), Arc::clone(&counts));
        async move {
            assert_eq!(request.version(), http::Version::HTTP_2);
            counts.requests.fetch_add(1, Ordering::SeqCst);
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let mut onward = http::Request::new(Full::new(body));
            *onward.method_mut() = parts.method;
            *onward.headers_mut() = parts.headers;
            *onward.uri_mut() = format!("http://{server}{path}").parse().expect("a URI");
            let answer = upstream.request(onward).await.expect("an answer");
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(http::header::TRANSFER_ENCODING);
            parts.headers.remove(http::header::CONNECTION);
            parts.version = http::Version::HTTP_2;
            Ok::<_, Infallible>(http::Response::from_parts(parts, body))
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(client), service)
        .await;
}
