//! The server's URL, and the one place that outbound HTTP may go to.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use url::{Host, Url};

use crate::error::{Error, Result};

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Lower case; IPv6 addresses in brackets.
    host: String,
    port: u16,
}

/// A server's URL, read as browsers read URLs: what is left is scheme and host in lower case, names
/// in their ASCII form (`xn--`), addresses written out (`127.1` is 127.0.0.1), no default port.
///
/// Errors: [`Error::Setting`] for anything that a request's path cannot be put behind: another
/// scheme, a user name, a query, a fragment, blanks, no host.
pub(crate) fn server_url(text: &str) -> Result<Url> {
    let refuse = |message: String| Error::Setting {
        name: "url",
        message,
    };
    // The parser passes over some of them silently.
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(refuse("has blanks or control characters".to_owned()));
    }
    let url = Url::parse(text).map_err(|error| {
        refuse(match error {
            url::ParseError::RelativeUrlWithoutBase if !text.is_empty() => format!(
                "`{text}` begins neither with http:// nor https://; is `http://{text}` meant?"
            ),
            error => format!("{error}; expected a URL such as http://127.0.0.1:6333"),
        })
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        let meant = match text.contains("://") {
            true => String::new(),
            false => format!("; is `http://{text}` meant?"),
        };
        return Err(refuse(format!(
            "`{}:` is neither http: nor https:{meant}",
            url.scheme()
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "user names and passwords do not belong in it; use an API key".to_owned(),
        ));
    }
    if url.query().is_some() {
        return Err(refuse("has a query (`?`)".to_owned()));
    }
    if url.fragment().is_some() {
        return Err(refuse("has a fragment (`#`)".to_owned()));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(refuse("has no host".to_owned()));
    };
    if url.port() == Some(0) {
        return Err(refuse("port 0 is none that a server can have".to_owned()));
    }
    if host.parse::<http::uri::Authority>().is_err() {
        return Err(refuse(format!("`{host}` is no name of a host")));
    }
    Ok(url)
}

/// [`server_url`] as text, without slashes at its end.
pub(crate) fn server_url_text(text: &str) -> Result<String> {
    let url = server_url(text)?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// True if requests to this URL do not leave the machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => {
            address.is_loopback()
                || matches!(IpAddr::V6(address).to_canonical(), IpAddr::V4(v4) if v4.is_loopback())
        }
        // RFC 6761: these names are this machine's own.
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

impl Origin {
    /// The origin of an `http` or `https` URL of a server.
    ///
    /// Errors: [`Error::Setting`] for one that cannot be a server's.
    pub fn of_url(text: &str) -> Result<Origin> {
        Origin::of(&server_url(text)?)
    }

    /// The origin of a URL that [`server_url`] has read.
    ///
    /// Errors: as [`Origin::of_url`].
    pub(crate) fn of(url: &Url) -> Result<Origin> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(Error::Setting {
                name: "url",
                message: "has no host".to_owned(),
            });
        };
        Ok(Origin {
            scheme: url.scheme().to_owned(),
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// True for `https`.
    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// The host, IPv6 addresses in brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// True if whoever listens at `listening`, on this machine, is at this origin. A name is looked up
    /// if the port is the same; one that cannot be is not there.
    pub fn is_at(&self, listening: SocketAddr) -> bool {
        if self.port != listening.port() {
            return false;
        }
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let Ok(addresses) = (host, self.port).to_socket_addrs() else {
            return false;
        };
        addresses
            .into_iter()
            .any(|address| reaches(address.ip(), listening.ip()))
    }

    /// True if a request to `uri` goes to this origin.
    pub(crate) fn admits(&self, uri: &http::Uri) -> bool {
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

/// Whether a connection to `asked` ends at a socket of this machine that listens on `listening`.
fn reaches(asked: IpAddr, listening: IpAddr) -> bool {
    let (asked, all) = (asked.to_canonical(), listening.is_unspecified());
    if asked == listening.to_canonical() {
        return true;
    }
    if asked.is_unspecified() {
        // As systems read it: this machine.
        return all || listening.is_loopback();
    }
    let is_family = listening.is_ipv6() || asked.is_ipv4();
    // An address can be bound only where it is.
    all && is_family && (asked.is_loopback() || UdpSocket::bind((asked, 0)).is_ok())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
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
    fn urls_that_cannot_be_a_server_are_refused_with_the_reason() {
        for (url, why) in [
            ("", "expected a URL"),
            ("localhost:6333", "is `http://localhost:6333` meant?"),
            ("ftp://a", "`ftp:` is neither http: nor https:"),
            ("http://", "expected a URL"),
            ("http://u:p@a/", "user names"),
            ("http://u@a/", "user names"),
            ("http://a/?x=1", "query"),
            ("http://a?", "query"),
            ("http://a/#f", "fragment"),
            (" http://a", "blanks"),
            ("http://a\n", "blanks"),
            ("http://a/b c", "blanks"),
            ("http://a\t.example", "blanks"),
            ("http://a:0", "port 0"),
            ("http://a:65536", "port"),
            ("http://[fe80::1%25eth0]", "IPv6"),
            ("http://[::1", "IPv6"),
            ("http://1.2.3.4.5", "IPv4"),
            ("http://a<b", "domain name"),
        ] {
            let refused = server_url(url).expect_err(url);
            assert!(matches!(refused, Error::Setting { name: "url", .. }));
            assert!(refused.to_string().contains(why), "{url:?}: {refused}");
        }
    }

    #[test]
    fn one_server_has_one_spelling() {
        for (written, meant) in [
            ("HTTP://HOST", "http://host"),
            ("http://127.1:6333", "http://127.0.0.1:6333"),
            ("http://0x7f000001", "http://127.0.0.1"),
            ("http://host:80/", "http://host"),
            ("https://host:443/qdrant/", "https://host/qdrant"),
            ("https://host:80/qdrant//", "https://host:80/qdrant"),
            ("http://host//qdrant", "http://host//qdrant"),
            ("http://host/a/../B", "http://host/B"),
            ("http://b\u{fc}cher.example", "http://xn--bcher-kva.example"),
            ("http://[0:0:0:0:0:0:0:1]:6333", "http://[::1]:6333"),
            ("http://host.", "http://host."),
        ] {
            let text = server_url_text(written).unwrap();
            assert_eq!(text, meant);
            assert_eq!(server_url_text(&text).unwrap(), meant);
            let request = format!("{text}/collections/c").parse().unwrap();
            assert!(Origin::of_url(written).unwrap().admits(&request), "{text}");
        }
    }

    #[test]
    fn what_stays_on_the_machine() {
        for (url, stays) in [
            ("http://localhost:6333", true),
            ("http://a.localhost", true),
            ("http://127.8.8.8", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("http://128.0.0.1", false),
            ("http://[fe80::1]", false),
        ] {
            assert_eq!(is_loopback(&server_url(url).unwrap()), stays, "{url}");
        }
    }

    #[test]
    fn who_listens_where_is_at_its_own_addresses() {
        let is_at = |url: &str, listening: &str| {
            let origin = Origin::of_url(url).unwrap();
            origin.is_at(listening.parse().unwrap())
        };
        for (url, listening) in [
            ("http://127.0.0.1:6333", "127.0.0.1:6333"),
            ("http://127.1:6333/prefix", "127.0.0.1:6333"),
            ("http://localhost:6333", "127.0.0.1:6333"),
            ("http://0.0.0.0:6333", "127.0.0.1:6333"),
            ("http://127.0.0.1:6333", "0.0.0.0:6333"),
            ("http://127.3.3.3:6333", "[::]:6333"),
            ("http://[::ffff:127.0.0.1]:6333", "127.0.0.1:6333"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert!(is_at(url, listening), "{url} {listening}");
        }
        for (url, listening) in [
            ("http://127.0.0.1:6334", "127.0.0.1:6333"),
            ("http://127.0.0.2:6333", "127.0.0.1:6333"),
            // For documentation: nobody has it.
            ("http://192.0.2.1:6333", "0.0.0.0:6333"),
            ("http://[::1]:6333", "127.0.0.1:6333"),
            ("http://[::1]:6333", "0.0.0.0:6333"),
            ("http://name.invalid:6333", "0.0.0.0:6333"),
        ] {
            assert!(!is_at(url, listening), "{url} {listening}");
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
}
