//! The engine's Python package: what its users would take instead.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use edge_sync_clients::python;
use serde_json::{Value, json};

use super::contestant::{Contestant, Found, Record, Result, Shape, State};

const PROGRAM: &str = include_str!("../../../clients/python/contestant.py");

/// The package and its version; the guide's way needs the same.
const REQUIREMENTS: &str = include_str!("../../../clients/python/guide-requirements.txt");

/// A program in Python that has the shard open, and tells the times of its calls.
pub struct Python(Mutex<Talk>);

struct Talk {
    program: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    /// A Python that has the package.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find() -> std::result::Result<PathBuf, String> {
        python::environment("python-guide", REQUIREMENTS)
    }

    /// Creates a shard.
    pub fn create(python: &Path, directory: &Path, shape: Shape) -> Result<Self> {
        let started = Self::start(python, directory)?;
        started.ask(json!({
            "do": "create",
            "size": shape.dimensions,
            "indexing_threshold": shape.indexing_threshold_kb,
        }))?;
        Ok(started)
    }

    /// Loads a shard.
    pub fn open(python: &Path, directory: &Path) -> Result<Self> {
        let started = Self::start(python, directory)?;
        started.timed("load")?;
        Ok(started)
    }

    /// Times unpacking a snapshot and loading it.
    pub fn restore(python: &Path, snapshot: &Path, directory: &Path) -> Result<Duration> {
        let started = Self::start(python, directory)?;
        seconds(&started.ask(json!({"do": "restore", "snapshot": snapshot}))?)
    }

    fn start(python: &Path, directory: &Path) -> Result<Self> {
        let mut program = Command::new(python)
            .args(["-c", PROGRAM])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (program.stdin.take(), program.stdout.take()) else {
            return Err("the program in Python has no pipes".into());
        };
        Ok(Self(Mutex::new(Talk {
            program,
            input,
            output: BufReader::new(output),
        })))
    }

    fn ask(&self, command: Value) -> Result<Value> {
        self.ask_with(command, &[])
    }

    fn ask_with(&self, mut command: Value, vectors: &[&[f32]]) -> Result<Value> {
        command["vectors"] = json!(vectors.len());
        command["dimensions"] = json!(vectors.first().map_or(0, |vector| vector.len()));
        let mut message = command.to_string().into_bytes();
        message.push(b'\n');
        for vector in vectors {
            message.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
        }
        let mut talk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        talk.input.write_all(&message)?;
        let mut line = String::new();
        talk.output.read_line(&mut line)?;
        serde_json::from_str(&line)
            .map_err(|error| format!("the program in Python said {line:?}: {error}").into())
    }

    fn timed(&self, what: &str) -> Result<Duration> {
        seconds(&self.ask(json!({"do": what}))?)
    }

    fn write(&self, records: &[Record], each: bool) -> Result<Duration> {
        let ids: Vec<u64> = records.iter().map(|record| record.id).collect();
        let payloads: Vec<_> = records.iter().map(|record| &record.payload).collect();
        let vectors: Vec<&[f32]> = records.iter().map(|record| &*record.vector).collect();
        let command = json!({"do": "upsert", "ids": ids, "payloads": payloads, "each": each});
        seconds(&self.ask_with(command, &vectors)?)
    }
}

impl Contestant for Python {
    fn upsert(&self, batch: &[Record]) -> Result<Duration> {
        self.write(batch, false)
    }

    fn upsert_each(&self, records: &[Record]) -> Result<Duration> {
        self.write(records, true)
    }

    fn search(&self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
        let command = json!({"do": "search", "limit": limit, "exact": exact});
        let answer = self.ask_with(command, &[vector])?;
        Ok(Found {
            elapsed: seconds(&answer)?,
            ids: serde_json::from_value(answer["ids"].clone())?,
        })
    }

    fn flush(&self) -> Result<Duration> {
        self.timed("flush")
    }

    fn optimize(&self) -> Result<Duration> {
        self.timed("optimize")
    }

    fn reopen(&mut self) -> Result<Duration> {
        self.timed("reopen")
    }

    fn state(&self) -> Result<State> {
        let answer = self.ask(json!({"do": "state"}))?;
        let number = |name: &str| answer[name].as_u64().ok_or("the state lacks a number");
        Ok(State {
            points: number("points")?,
            indexed: number("indexed")?,
            segments: number("segments")?,
        })
    }

    fn process(&self) -> Option<u32> {
        let talk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(talk.program.id())
    }
}

fn seconds(answer: &Value) -> Result<Duration> {
    let seconds = answer["seconds"].as_f64();
    let seconds = seconds.ok_or_else(|| format!("the program in Python told no time: {answer}"))?;
    Ok(Duration::try_from_secs_f64(seconds)?)
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It waits for a line that never comes.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
