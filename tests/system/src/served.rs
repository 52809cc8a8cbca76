//! `edge-sync serve` in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge_sync_clients::rest::Client;
use serde_json::{Value, json};

use crate::support::{CONFIG, SETTINGS, command, component};

/// After so long without what a test waits for, it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command over the data directory `data`, with the settings that its flags give.
pub fn edge_sync(data: &Path, arguments: &[&str]) -> Command {
    // Compiled by now, so that no command says that it prepares it.
    let _ = component();
    let mut command = Command::new(command());
    for name in SETTINGS {
        command.env_remove(name);
    }
    // Those that long runs of the tests are asked for by, which the command does not know.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_of_tests = name.starts_with("EDGE_SYNC_");
        if is_of_tests && !["EDGE_SYNC_COMPONENT", "EDGE_SYNC_CACHE"].contains(&name.as_ref()) {
            command.env_remove(name.as_ref());
        }
    }
    command.arg("--data-dir").arg(data).args(arguments);
    command
}

/// A running `edge-sync serve`; killed when dropped.
pub struct Served {
    child: Child,
    output: BufReader<ChildStdout>,
    errors: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
    /// The ready line.
    pub ready: Value,
}

/// What a process that was asked to stop left.
#[derive(Debug)]
pub struct Stopped {
    pub status: ExitStatus,
    /// Standard output after the ready line.
    pub output: String,
    pub errors: String,
}

impl Served {
    /// Starts on a free port over `data`, and waits until it is ready.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = edge_sync(data, &["--json", "serve", "--listen", "127.0.0.1:0"]);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts `command`, which is `edge-sync --json serve`, and waits until it is ready.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let errors = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().expect("its errors"));
        let kept = Arc::clone(&errors);
        let reading = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                line.clear();
            }
        });
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let status = child.wait();
            let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
            panic!("not ready: {error}: {line:?}, {status:?}: {errors}")
        });
        Self {
            child,
            output,
            errors,
            reading: Some(reading),
            ready,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        self.ready["url"].as_str().expect("a URL")
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A client without an API key.
    pub fn client(&self) -> Client {
        Client::new(self.url(), None)
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until it has written `text` to standard error.
    pub fn wait_for_note(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.errors().contains(text) {
            assert!(Instant::now() < end, "no `{text}`: {}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends `TERM`, as a service manager does.
    pub fn terminate(&self) {
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {}", self.child.id()))
            .status();
        assert!(sent.expect("sh").success());
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    /// Asks it to stop and waits for the end.
    pub fn stop(self) -> Stopped {
        self.terminate();
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Stopped {
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("its output");
        let status = self.child.wait().expect("its end");
        if let Some(reading) = self.reading.take() {
            reading.join().expect("no panic");
        }
        Stopped {
            status,
            output,
            errors: self.errors(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of the collections that are served.
pub fn config() -> Value {
    serde_json::from_str(CONFIG).expect("JSON")
}

/// A body with points of these ids.
pub fn points(ids: impl IntoIterator<Item = u64>) -> Value {
    let points: Vec<Value> = ids
        .into_iter()
        .map(|id| json!({"id": id, "vector": [1, id, 0, 1], "payload": {"n": id}}))
        .collect();
    json!({ "points": points })
}
