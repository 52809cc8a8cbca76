//! The command, serving a shard.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use edge_sync_clients::rest::Client;
use serde_json::Value;

use crate::contestants::Result;

/// What the served collection is called.
const NAME: &str = "bench";

/// Where it is.
pub const COLLECTION: &str = "/collections/bench";

/// Killed when dropped.
pub struct Served {
    child: Child,
    /// Host and port.
    pub address: String,
}

/// The `edge-sync` command.
///
/// # Errors
/// Where the environment does not say where it is.
pub fn command() -> Result<PathBuf> {
    std::env::var_os("EDGE_SYNC_BIN")
        .map(PathBuf::from)
        .ok_or_else(|| "EDGE_SYNC_BIN does not say where the command is".into())
}

impl Served {
    /// Serves `directory`; `flags` are those of `serve`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(directory: &Path, flags: &[String]) -> Result<Self> {
        let mut child = Command::new(command()?)
            .arg("--data-dir")
            .arg(directory)
            .args(["--json", "serve", "--no-sync", "--listen", "127.0.0.1:0"])
            .args(flags)
            .env("EDGE_SYNC_COLLECTION", NAME)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        let url = ready["url"].as_str().unwrap_or_default();
        let address = url.trim_start_matches("http://").to_owned();
        let served = Self { child, address };
        if served.address.is_empty() {
            return Err("serve did not start".into());
        }
        Ok(served)
    }

    /// Somebody who asks it, over connections of its own.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), None)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
