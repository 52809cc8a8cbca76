//! Why a request has no answer: what the component is told, and what people are told.
//!
//! The component learns a code of `wasi:http`, by which it decides what to do; the words, which
//! `wasi:http` has no room for, are put in place of the component's own by the courier.

use std::error::Error as _;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::client::legacy;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use wasmtime_wasi_http::Error as Code;

use crate::connector::{ConnectError, SpeaksTls};
use crate::proxy::TunnelError;

/// A clock that says less than this is wrong: 2026-01-01.
const NOT_BEFORE: u64 = 1_767_225_600;

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub(crate) code: Code,
    pub(crate) words: String,
}

/// Whom it was about.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Host and port of the server.
    pub(crate) server: String,
    /// Host and port of the proxy, if there is one.
    pub(crate) proxy: Option<String>,
}

impl Peer {
    /// To whom connections are made.
    fn first(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("the proxy {proxy}"),
            None => format!("the server at {}", self.server),
        }
    }

    fn host(&self) -> &str {
        let place = self.proxy.as_deref().unwrap_or(&self.server);
        place.rsplit_once(':').map_or(place, |(host, _)| host)
    }
}

fn no_answer(code: Code, words: impl Into<String>) -> NoAnswer {
    NoAnswer {
        code,
        words: words.into(),
    }
}

/// The server is an endpoint of this process: what it takes is queued for upload again.
pub(crate) fn itself() -> NoAnswer {
    no_answer(
        Code::HttpRequestDenied,
        "the server is this very device, which would upload to itself",
    )
}

/// Why the client has no answer.
pub(crate) fn of_client(error: &legacy::Error, peer: &Peer) -> NoAnswer {
    let mut at = error.source();
    while let Some(cause) = at {
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return of_connecting(error, peer);
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return of_exchange(error, peer);
        }
        at = cause.source();
    }
    // A connection that was closed before the request was on it, several times over.
    no_answer(
        Code::DestinationUnavailable,
        format!("{} closes connections before a request", peer.first()),
    )
}

/// Why there is no connection. Nothing was sent.
fn of_connecting(error: &ConnectError, peer: &Peer) -> NoAnswer {
    match error {
        ConnectError::Unresolved(error) => no_answer(
            Code::DnsError {
                rcode: None,
                info_code: None,
            },
            format!("the name `{}` cannot be resolved: {error}", peer.host()),
        ),
        ConnectError::Tcp(error) => of_tcp(error, peer),
        ConnectError::Late(limit) => late(*limit, peer),
        ConnectError::Tls(error) => match tls_error(error) {
            Some(error) => of_tls(error, peer),
            None => no_answer(
                Code::DestinationUnavailable,
                format!(
                    "the connection to {} was cut while it was secured",
                    peer.server
                ),
            ),
        },
        ConnectError::Tunnel(error) => of_tunnel(error, peer),
    }
}

fn of_tcp(error: &io::Error, peer: &Peer) -> NoAnswer {
    let first = peer.first();
    let unavailable = |words: String| no_answer(Code::DestinationUnavailable, words);
    match error.kind() {
        io::ErrorKind::ConnectionRefused => no_answer(
            Code::ConnectionRefused,
            format!("{first} refuses connections"),
        ),
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown => no_answer(
            Code::DestinationIpUnroutable,
            format!("there is no way to {first}: {error}"),
        ),
        io::ErrorKind::AddrNotAvailable => no_answer(
            Code::ConnectionLimitReached,
            "this device has no free port for another connection",
        ),
        io::ErrorKind::TimedOut => no_answer(
            Code::ConnectionTimeout,
            format!("{first} could not be reached in time"),
        ),
        io::ErrorKind::PermissionDenied => unavailable(format!(
            "this device does not permit connections to {first}"
        )),
        _ if out_of_files(error) => no_answer(
            Code::ConnectionLimitReached,
            "this process has too many files open for another connection",
        ),
        _ => unavailable(format!("no connection to {first}: {error}")),
    }
}

#[cfg(unix)]
fn out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(not(unix))]
fn out_of_files(_: &io::Error) -> bool {
    false
}

/// Nobody answered within the limit.
fn late(limit: Duration, peer: &Peer) -> NoAnswer {
    no_answer(
        Code::ConnectionTimeout,
        format!(
            "{} could not be reached in time ({} s)",
            peer.first(),
            limit.as_secs_f64()
        ),
    )
}

fn of_tunnel(error: &TunnelError, peer: &Peer) -> NoAnswer {
    let proxy = peer.first();
    match error {
        TunnelError::Io(error) => no_answer(
            Code::DestinationUnavailable,
            format!("{proxy} cut the connection: {error}"),
        ),
        TunnelError::Refused(407) => no_answer(
            Code::HttpRequestDenied,
            format!(
                "{proxy} wants a user name and a password: HTTPS_PROXY=http://USER:PASSWORD@..."
            ),
        ),
        TunnelError::Refused(status @ (403 | 405)) => no_answer(
            Code::HttpRequestDenied,
            format!("{proxy} does not let connections through to the server (status {status})"),
        ),
        TunnelError::Refused(status) => no_answer(
            Code::DestinationUnavailable,
            format!("{proxy} has no connection to the server (status {status})"),
        ),
        TunnelError::NoProxy => no_answer(
            Code::DestinationUnavailable,
            format!("what answers as {proxy} is not an HTTP proxy"),
        ),
    }
}

/// What of TLS is in an error of reading or writing.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a connection is not secure. A person is needed for most of it; what passes by itself is said
/// to be a server that cannot be reached.
fn of_tls(error: &rustls::Error, peer: &Peer) -> NoAnswer {
    let server = &peer.server;
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error, clock()),
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => no_answer(
            Code::TlsProtocolError,
            format!("what answers at {server} does not speak TLS; is its URL http:// ?"),
        ),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::PeerIncompatible(error) => no_answer(
            Code::TlsProtocolError,
            format!(
                "the server's TLS has nothing in common with what is understood here: {error:?}"
            ),
        ),
        error => no_answer(
            Code::DestinationUnavailable,
            format!("no secure connection to {server}: {error}"),
        ),
    }
}

fn of_alert(alert: AlertDescription) -> NoAnswer {
    use AlertDescription as A;
    let alert_id = Some(u8::from(alert));
    let refused = |words: String| {
        no_answer(
            Code::TlsAlertReceived {
                alert_id,
                alert_message: None,
            },
            words,
        )
    };
    match alert {
        A::CertificateRequired | A::NoCertificate => refused(
            "the server asks for a client certificate: client_certificate_file and \
             client_key_file"
                .to_owned(),
        ),
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => refused(format!(
            "the server does not accept this device's certificate ({alert:?})"
        )),
        A::UnrecognisedName => refused("the server does not go by this name".to_owned()),
        A::ProtocolVersion | A::InsufficientSecurity | A::HandshakeFailure => refused(format!(
            "the server does not want what is offered for a secure connection ({alert:?})"
        )),
        _ => no_answer(
            Code::DestinationUnavailable,
            format!("the server gave the secure connection up ({alert:?})"),
        ),
    }
}

/// Why a certificate is not accepted; `now` is what this device's clock says.
fn of_certificate(error: &CertificateError, now: UnixTime) -> NoAnswer {
    use CertificateError as E;
    let refused = |words: String| no_answer(Code::TlsCertificateError, words);
    let dated = |what: &str, time: &UnixTime| format!("{what} {}", date(*time));
    match error {
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. }
            if now.as_secs() < NOT_BEFORE =>
        {
            // It is set once there is a network, by itself.
            no_answer(
                Code::DestinationUnavailable,
                format!(
                    "this device's clock is far off, it says {}; certificates cannot be checked \
                     until it is set",
                    date(now)
                ),
            )
        }
        E::Expired => refused("the server's certificate has expired".to_owned()),
        E::ExpiredContext { not_after, .. } => refused(format!(
            "the server's certificate has expired: {}; this device's clock says {}",
            dated("it was valid until", not_after),
            date(now)
        )),
        // Time, or the clock, puts it right.
        E::NotValidYet => no_answer(
            Code::DestinationUnavailable,
            "the server's certificate is not valid yet; is this device's clock right?",
        ),
        E::NotValidYetContext { not_before, .. } => no_answer(
            Code::DestinationUnavailable,
            format!(
                "the server's certificate is not valid yet: {}; this device's clock says {}",
                dated("it begins on", not_before),
                date(now)
            ),
        ),
        // A bad signature is that of an authority which is called like one that is trusted.
        E::UnknownIssuer | E::BadSignature => refused(
            "the server's certificate is from an authority that is not trusted here; if it is yours, \
             give its certificate with ca_file or SSL_CERT_FILE"
                .to_owned(),
        ),
        E::NotValidForName => refused("the server's certificate is for another name".to_owned()),
        E::NotValidForNameContext {
            expected,
            presented,
        } => refused(format!(
            "the server's certificate is not for `{}` but for {}",
            expected.to_str(),
            names(presented)
        )),
        E::Revoked => refused("the server's certificate was revoked".to_owned()),
        E::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => refused(
            "the server's certificate is that of an authority itself; give the server one that the \
             authority has signed, or make it without CA:TRUE"
                .to_owned(),
        ),
        error => refused(format!("the server's certificate is not accepted: {error}")),
    }
}

/// What a certificate is for; the library writes `DnsName("a")`.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<&str> = presented
        .iter()
        .take(SHOWN)
        .map(|name| {
            let inside = name
                .split_once('(')
                .map(|(_, rest)| rest.trim_end_matches(')'));
            inside.unwrap_or(name).trim_matches('"')
        })
        .collect();
    if presented.len() > SHOWN {
        names.push("others");
    }
    match names.is_empty() {
        true => "no name".to_owned(),
        false => names.join(", "),
    }
}

/// Why an exchange on a connection ended without an answer. Whether it was carried out is not known.
pub(crate) fn of_exchange(error: &hyper::Error, peer: &Peer) -> NoAnswer {
    let mut at = error.source();
    while let Some(cause) = at {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            if error.get_ref().is_some_and(|error| error.is::<SpeaksTls>()) {
                return no_answer(
                    Code::TlsProtocolError,
                    format!(
                        "what answers at {} speaks TLS; its URL is https://",
                        peer.server
                    ),
                );
            }
            if let Some(error) = tls_error(error) {
                return of_tls(error, peer);
            }
        }
        at = cause.source();
    }
    if error.is_parse() {
        return no_answer(
            Code::HttpProtocolError,
            format!("what {} answers is not HTTP", peer.server),
        );
    }
    cut()
}

/// The connection ended in the middle.
pub(crate) fn cut() -> NoAnswer {
    no_answer(Code::ConnectionTerminated, "the connection was cut")
}

/// No answer within the time for it.
pub(crate) fn silence() -> NoAnswer {
    no_answer(
        Code::ConnectionReadTimeout,
        "the server did not answer in time",
    )
}

fn clock() -> UnixTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime::since_unix_epoch(now.unwrap_or_default())
}

/// `2026-01-31`.
fn date(time: UnixTime) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    match time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        Some(since) => civil(since.as_secs() / 86_400),
        None => "a date far away".to_owned(),
    }
}

/// The Gregorian date of a day since 1970-01-01.
fn civil(days: u64) -> String {
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    loop {
        let length = 365 + u64::from(leap(year));
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        .into_iter()
        .enumerate()
    {
        if left < length {
            return format!("{year}-{:02}-{:02}", month + 1, left + 1);
        }
        left -= length;
    }
    // A year's days are those of its months.
    format!("{year}-12-31")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> UnixTime {
        let days = (0..100_000).find(|days| civil(*days) == text).unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400))
    }

    #[test]
    fn dates() {
        for (days, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_088, "2024-12-31"),
            (20_454, "2026-01-01"),
            (47_541, "2100-03-01"),
            (146_097, "2370-01-01"),
        ] {
            assert_eq!(civil(days), text);
        }
        assert_eq!(
            date(UnixTime::since_unix_epoch(Duration::MAX)),
            "a date far away"
        );
    }

    #[test]
    fn a_clock_far_off_is_told_from_a_certificate_that_is_old() {
        let expired = |now: UnixTime| CertificateError::ExpiredContext {
            time: now,
            not_after: day("2026-05-01"),
        };
        let now = day("2026-06-01");
        let told = of_certificate(&expired(now), now);
        assert!(matches!(told.code, Code::TlsCertificateError));
        assert!(told.words.contains("2026-05-01"), "{}", told.words);
        assert!(told.words.contains("2026-06-01"), "{}", told.words);

        let start = day("1970-01-01");
        let early = CertificateError::NotValidYetContext {
            time: start,
            not_before: day("2026-05-01"),
        };
        for error in [expired(start), early.clone()] {
            let told = of_certificate(&error, start);
            assert!(matches!(told.code, Code::DestinationUnavailable));
            assert!(told.words.contains("clock is far off"), "{}", told.words);
            assert!(told.words.contains("1970-01-01"), "{}", told.words);
        }
        let told = of_certificate(&early, day("2026-04-30"));
        assert!(matches!(told.code, Code::DestinationUnavailable));
        assert!(told.words.contains("not valid yet"), "{}", told.words);
    }

    #[test]
    fn what_the_system_says_of_a_connection_has_words_of_its_own() {
        let peer = Peer {
            server: "qdrant.example:6333".to_owned(),
            proxy: None,
        };
        for (kind, words) in [
            (io::ErrorKind::ConnectionRefused, "refuses connections"),
            (io::ErrorKind::NetworkUnreachable, "no way to the server"),
            (io::ErrorKind::HostUnreachable, "no way to the server"),
            (io::ErrorKind::AddrNotAvailable, "no free port"),
            (io::ErrorKind::TimedOut, "in time"),
            (io::ErrorKind::PermissionDenied, "does not permit"),
            (io::ErrorKind::ConnectionReset, "no connection"),
        ] {
            let told = of_connecting(&ConnectError::Tcp(kind.into()), &peer);
            assert!(told.words.contains(words), "{kind}: {}", told.words);
        }
        let unresolved = ConnectError::Unresolved(io::Error::other("nobody knows it"));
        let told = of_connecting(&unresolved, &peer);
        assert!(matches!(told.code, Code::DnsError { .. }));
        assert!(told.words.contains("`qdrant.example`"), "{}", told.words);
        #[cfg(unix)]
        {
            let full = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
            let told = of_connecting(&ConnectError::Tcp(full), &peer);
            assert!(told.words.contains("too many files"), "{}", told.words);
        }
        let behind = Peer {
            proxy: Some("proxy:3128".to_owned()),
            ..peer
        };
        let refused = ConnectError::Tcp(io::ErrorKind::ConnectionRefused.into());
        let told = of_connecting(&refused, &behind);
        assert!(
            told.words.contains("the proxy proxy:3128"),
            "{}",
            told.words
        );
    }
}
