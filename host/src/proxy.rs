//! The proxy between this device and the server, if there is one.

use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use crate::error::{Error, Result};
use crate::origin::is_loopback;

/// Longest head of a proxy's answer.
const HEAD_BYTES: usize = 8 << 10;

/// An HTTP proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) uri: http::Uri,
    /// For `Proxy-Authorization`.
    pub(crate) authorization: Option<http::HeaderValue>,
}

/// How asking for a way through a proxy failed.
#[derive(Debug)]
pub(crate) enum TunnelError {
    Io(std::io::Error),
    /// What it answered instead of 200.
    Refused(u16),
    /// What answered does not speak HTTP.
    NoProxy,
}

impl Proxy {
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say about the server, with curl's
    /// rules; never one for this machine.
    ///
    /// Errors: [`Error::Setting`] for a proxy that is not an HTTP proxy.
    pub(crate) fn of_environment(server: &Url) -> Result<Option<Proxy>> {
        Proxy::of(&Matcher::from_env(), server)
    }

    fn of(rules: &Matcher, server: &Url) -> Result<Option<Proxy>> {
        if is_loopback(server) {
            return Ok(None);
        }
        let Ok(destination) = server.as_str().parse() else {
            return Ok(None);
        };
        let Some(found) = rules.intercept(&destination) else {
            return Ok(None);
        };
        // `socks5://`, and TLS to the proxy itself.
        if found.uri().scheme_str() != Some("http") {
            return Err(Error::Setting {
                name: "proxy",
                message: format!(
                    "`{}` from the environment is not an http proxy; NO_PROXY={} goes without",
                    found.uri().scheme_str().unwrap_or_default(),
                    server.host_str().unwrap_or_default()
                ),
            });
        }
        Ok(Some(Proxy {
            uri: found.uri().clone(),
            authorization: found.basic_auth().cloned(),
        }))
    }

    /// Host and port, for people.
    pub(crate) fn name(&self) -> &str {
        self.uri.authority().map_or("", |authority| {
            let text = authority.as_str();
            text.rsplit_once('@').map_or(text, |(_, host)| host)
        })
    }

    /// Asks for a way through to `authority`, on which whatever follows is the server's.
    pub(crate) async fn tunnel(
        &self,
        stream: &mut TcpStream,
        authority: &str,
    ) -> Result<(), TunnelError> {
        let mut request =
            format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await.map_err(TunnelError::Io)?;
        let mut head = Vec::new();
        // One by one: what is behind the head is not the proxy's.
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.map_err(TunnelError::Io)?;
            head.push(byte);
            if head.len() > HEAD_BYTES {
                return Err(TunnelError::NoProxy);
            }
        }
        match status(&head) {
            Some(200..=299) => Ok(()),
            Some(status) => Err(TunnelError::Refused(status)),
            None => Err(TunnelError::NoProxy),
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(line.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::server_url;

    fn proxy_for(rules: &Matcher, url: &str) -> Result<Option<String>> {
        let proxy = Proxy::of(rules, &server_url(url).unwrap())?;
        Ok(proxy.map(|proxy| proxy.name().to_owned()))
    }

    #[test]
    fn which_servers_are_behind_a_proxy() {
        let rules = Matcher::builder()
            .http("http://user:secret@proxy:3128")
            .https("secure-proxy:3129")
            .no("direct.example,10.0.0.0/8")
            .build();
        for (url, proxy) in [
            ("http://qdrant.example:6333", Some("proxy:3128")),
            ("https://qdrant.example", Some("secure-proxy:3129")),
            ("https://direct.example", None),
            ("https://a.direct.example", None),
            ("http://10.1.2.3:6333", None),
            ("http://127.0.0.1:6333", None),
            ("http://localhost:6333", None),
            ("http://[::1]:6333", None),
        ] {
            assert_eq!(proxy_for(&rules, url).unwrap().as_deref(), proxy, "{url}");
        }
        let socks = Matcher::builder().all("socks5://user:secret@a:1").build();
        let refused = proxy_for(&socks, "https://b").unwrap_err().to_string();
        assert!(refused.contains("socks5"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        assert!(proxy_for(&socks, "http://localhost").unwrap().is_none());
    }

    #[test]
    fn what_a_proxy_answers() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 Proxy"), Some(407));
        for junk in [
            &b""[..],
            b"HTTP/1.",
            b"HTTP/1.1 2",
            b"SSH-2.0",
            b"HTTP/1.1 \xff\xff\xff",
        ] {
            assert_eq!(status(junk), None);
        }
    }
}
