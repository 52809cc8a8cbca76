//! What goes wrong, and when.
//!
//! Every call of the component that touches the disk or the network is numbered, from 1, and asks
//! its [`Plan`] what happens to it. The number, the name and the file of a call depend on nothing
//! but the seed and the script, so a plan that names a number always hits the same call.

use std::collections::BTreeMap;
use std::fmt;

/// What a call does, as far as faults differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Reads data, names or attributes.
    Read,
    /// Writes file data.
    Write,
    /// Changes names or a length.
    Change,
    /// Makes something durable.
    Sync,
    /// One exchange with the server, or reading on in its answer.
    Http,
}

/// One numbered call.
#[derive(Clone, Debug)]
pub struct HostCall {
    /// Counted from 1 since the world began, across instances.
    pub number: u64,
    /// Of WASI, as in `descriptor.sync`.
    pub name: &'static str,
    /// The file, or the request.
    pub target: String,
    /// What it does.
    pub kind: CallKind,
}

impl fmt::Display for HostCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {}", self.number, self.name, self.target)
    }
}

/// How a call on the file system fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `ENOSPC`.
    NoSpace,
    /// `EIO`.
    Io,
}

/// How an exchange with the server goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The request never arrives.
    DropRequest,
    /// The server does what was asked, and its answer never arrives.
    DropAnswer,
    /// The request arrives twice.
    Duplicate,
    /// The answer takes this many milliseconds of the simulated clock.
    Delay(u32),
    /// The server does what was asked; its answer ends with an error after this many thousandths.
    CutBody(u16),
    /// The server answers this status and does nothing.
    Refuse(u16),
    /// `429` with a `Retry-After` of one second; the server does nothing.
    TooMany,
    /// Something on the way answers with a page and this status; nothing reaches the server.
    Page(u16),
    /// A captive portal answers; nothing reaches the server.
    Portal,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The instance stops; the call has no effect.
    StopBefore,
    /// The call takes effect, and the instance stops.
    StopAfter,
    /// The call fails and has no effect, except that a failed sync loses what it was to make
    /// durable.
    Fail(Failure),
    /// A write takes this many thousandths of its bytes; where WASI cannot tell so, it fails after
    /// them.
    Short(u16, Failure),
    /// The exchange goes wrong.
    Http(HttpFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which calls meet which faults.
#[derive(Clone, Debug)]
pub enum Plan {
    /// All goes well.
    Quiet,
    /// These calls, by number.
    At(BTreeMap<u64, Fault>),
    /// This one fails as calls of its kind do.
    FailAt(u64),
    /// Any call, with probabilities.
    Random(Odds),
}

/// Probabilities of faults, each per call that it can happen to.
#[derive(Clone, Debug)]
pub struct Odds {
    /// Drawn from once a call.
    pub random: fastrand::Rng,
    /// Of stopping before or after a call.
    pub stop: f64,
    /// Of a failing call on the file system.
    pub fail: f64,
    /// Of an exchange that goes wrong.
    pub http: f64,
}

impl Plan {
    /// What happens to `call`.
    pub fn decide(&mut self, call: &HostCall) -> Option<Fault> {
        match self {
            Plan::Quiet => None,
            Plan::At(faults) => faults.get(&call.number).copied(),
            Plan::FailAt(number) if call.number != *number => None,
            Plan::FailAt(_) => Some(match call.kind {
                CallKind::Read | CallKind::Sync => Fault::Fail(Failure::Io),
                CallKind::Write | CallKind::Change => Fault::Fail(Failure::NoSpace),
                CallKind::Http => Fault::Http(HttpFault::DropAnswer),
            }),
            Plan::Random(odds) => odds.draw(call.kind),
        }
    }
}

/// Statuses of pages that come in passing.
const PAGES: [u16; 6] = [200, 400, 404, 413, 421, 502];

impl Odds {
    fn draw(&mut self, kind: CallKind) -> Option<Fault> {
        let Odds {
            random,
            stop,
            fail,
            http,
        } = self;
        if random.f64() < *stop {
            return Some(if random.bool() {
                Fault::StopBefore
            } else {
                Fault::StopAfter
            });
        }
        if kind == CallKind::Http {
            return (random.f64() < *http).then(|| {
                Fault::Http(match random.u8(..10) {
                    0 => HttpFault::DropRequest,
                    1 => HttpFault::DropAnswer,
                    2 => HttpFault::Duplicate,
                    3 => HttpFault::Delay(random.u32(1..60_000)),
                    4 => HttpFault::CutBody(random.u16(..=1000)),
                    5 => HttpFault::Refuse(500),
                    6 => HttpFault::Refuse(503),
                    7 => HttpFault::TooMany,
                    8 => HttpFault::Page(PAGES[random.usize(..PAGES.len())]),
                    _ => HttpFault::Portal,
                })
            });
        }
        if random.f64() >= *fail {
            return None;
        }
        let failure = match kind {
            CallKind::Read | CallKind::Sync | CallKind::Http => Failure::Io,
            CallKind::Write | CallKind::Change if random.bool() => Failure::Io,
            CallKind::Write | CallKind::Change => Failure::NoSpace,
        };
        Some(if kind == CallKind::Write && random.bool() {
            Fault::Short(random.u16(..1000), failure)
        } else {
            Fault::Fail(failure)
        })
    }
}
