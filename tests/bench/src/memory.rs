//! What memory a process has, as Linux tells it.

use serde::{Deserialize, Serialize};

/// Bytes of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In memory now.
    pub resident: u64,
    /// Of it, what no file has: what the system cannot drop.
    pub own: u64,
    /// The most that ever was in memory.
    pub peak: u64,
}

impl Memory {
    /// Of this process, or of another. None where the system does not tell.
    pub fn of(process: Option<u32>) -> Option<Self> {
        let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Self::read(&status)
    }

    fn read(status: &str) -> Option<Self> {
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kilobytes << 10)
        };
        Some(Self {
            resident: bytes("VmRSS:")?,
            own: bytes("RssAnon:")?,
            peak: bytes("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_status_are_read() {
        let status =
            "Name:\tbench\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\n";
        let memory = Memory {
            resident: 1 << 20,
            own: 512 << 10,
            peak: 2 << 20,
        };
        assert_eq!(Memory::read(status), Some(memory));
        assert_eq!(Memory::read("Name:\tbench\n"), None);
    }
}
