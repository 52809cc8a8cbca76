//! Opens connections: to the server or its proxy, in clear or secured.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::proxy::{Proxy, TunnelError};

/// Between two looks whether the other side of a silent connection is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The name has no address that is known here.
    Unresolved(io::Error),
    Tcp(io::Error),
    Tls(io::Error),
    Tunnel(TunnelError),
    /// It took longer than this.
    Late(Duration),
}

impl fmt::Display for ConnectError {
    /// For logs; what people are told is made elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for ConnectError {}

/// Makes connections to one origin, whatever it is asked for.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector<Resolver>,
    secured: Option<(TlsConnector, ServerName<'static>)>,
    proxy: Option<Proxy>,
    target: http::Uri,
    authority: String,
    limit: Duration,
}

impl Connector {
    /// `tls` is for an origin that is secure. `limit`: longest time until a connection can take a
    /// request.
    ///
    /// Errors: [`Error::Setting`] for a host that no certificate can name.
    pub(crate) fn new(
        origin: &Origin,
        tls: Option<Arc<ClientConfig>>,
        proxy: Option<Proxy>,
        limit: Duration,
    ) -> Result<Connector> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_connect_timeout(Some(limit));
        let secured = tls
            .map(|config| {
                let host = origin.host().trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Setting {
                    name: "url",
                    message: format!("`{host}` is no name that a certificate can be for"),
                })?;
                Ok::<_, Error>((TlsConnector::from(config), name))
            })
            .transpose()?;
        let target = origin.to_string().parse().map_err(|_| Error::Setting {
            name: "url",
            message: format!("`{origin}` is no place that requests can go to"),
        })?;
        Ok(Connector {
            tcp,
            secured,
            proxy,
            target,
            authority: origin.authority(),
            limit,
        })
    }

    async fn connect(mut self) -> Result<Stream, ConnectError> {
        let first = match &self.proxy {
            Some(proxy) => proxy.uri.clone(),
            None => self.target,
        };
        let stream = self.tcp.call(first).await.map_err(|error| tcp(&error))?;
        let mut stream = stream.into_inner();
        let mut http2 = false;
        let secured = self.secured.is_some();
        let io: Box<dyn Duplex> = match self.secured {
            Some((connector, name)) => {
                if let Some(proxy) = &self.proxy {
                    let tunnel = proxy.tunnel(&mut stream, &self.authority).await;
                    tunnel.map_err(ConnectError::Tunnel)?;
                }
                let stream = connector.connect(name, stream).await;
                let stream = stream.map_err(ConnectError::Tls)?;
                http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Box::new(TokioIo::new(stream))
            }
            None => Box::new(TokioIo::new(Clear {
                stream,
                begun: false,
            })),
        };
        Ok(Stream {
            io,
            http2,
            // Behind a tunnel is the server; otherwise the proxy is told whose a request is.
            proxied: self.proxy.is_some() && !secured,
            used: Used::default(),
        })
    }
}

impl Service<http::Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let this = self.clone();
        let limit = self.limit;
        Box::pin(async move {
            let connecting = tokio::time::timeout(limit, this.connect());
            connecting.await.unwrap_or(Err(ConnectError::Late(limit)))
        })
    }
}

/// Why there is no TCP connection: the cause that says most.
fn tcp(error: &(dyn std::error::Error + 'static)) -> ConnectError {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(Unresolved(error)) = error.downcast_ref() {
            return ConnectError::Unresolved(copy(error));
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return ConnectError::Tcp(copy(error));
        }
        at = error.source();
    }
    ConnectError::Tcp(io::Error::other(error.to_string()))
}

/// As far as anybody looks at it.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The system's resolver, whose errors can be told from those of connections.
#[derive(Clone)]
struct Resolver(GaiResolver);

#[derive(Debug)]
struct Unresolved(io::Error);

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unresolved {}

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, Unresolved>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = self.0.call(name);
        Box::pin(async move { addresses.await.map_err(Unresolved) })
    }
}

/// When a connection had its last answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used(Arc<Mutex<Option<Instant>>>);

impl Used {
    pub(crate) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection.
pub(crate) struct Stream {
    io: Box<dyn Duplex>,
    http2: bool,
    proxied: bool,
    used: Used,
}

trait Duplex: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Duplex for T {}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new()
            .proxy(self.proxied)
            .extra(self.used.clone());
        match self.http2 {
            true => connected.negotiated_h2(),
            false => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }
}

/// What answers on a connection in clear speaks TLS.
#[derive(Debug)]
pub(crate) struct SpeaksTls;

impl fmt::Display for SpeaksTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is a TLS alert")
    }
}

impl std::error::Error for SpeaksTls {}

/// A connection in clear, of whose answer the first byte is looked at.
struct Clear {
    stream: TcpStream,
    begun: bool,
}

/// How a record of TLS begins that holds an alert.
const TLS_ALERT: u8 = 21;

impl AsyncRead for Clear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if !self.begun
            && let Some(first) = buffer.filled().get(before)
        {
            self.begun = true;
            if *first == TLS_ALERT {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, SpeaksTls)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Clear {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}
