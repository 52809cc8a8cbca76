//! Who has a data directory.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The process that has a data directory, as it says in the lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// What it calls itself: `edge-sync serve`.
    pub command: Option<String>,
    /// Since when it has the directory, in milliseconds since 1970 (UTC).
    pub since_ms: Option<u64>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match &self.command {
            Some(command) => write!(f, ", `{command}`"),
            None => Ok(()),
        }
    }
}

impl Holder {
    pub(crate) fn parse(text: &str) -> Option<Holder> {
        // Earlier versions wrote the process id alone.
        let pid_alone = || {
            Some(Holder {
                pid: text.trim().parse().ok()?,
                command: None,
                since_ms: None,
            })
        };
        serde_json::from_str(text).ok().or_else(pid_alone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_or_nobody_wrote_is_no_trouble() {
        let earlier = Holder::parse("4711\n").unwrap();
        assert_eq!((earlier.pid, earlier.command), (4711, None));
        for text in ["", "{", "-1", "{\"pid\": \"x\"}"] {
            assert_eq!(Holder::parse(text), None, "{text}");
        }
    }
}
