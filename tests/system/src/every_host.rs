//! One list of behaviours, `tests/fixtures/hosts.json`, through every host: the `edge-sync` command, the
//! component as a program of the `wasmtime` command, the Python package, the Node package, a browser.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use edge_sync_double::{Options, QdrantDouble};
use serde_json::{Value, json};

use crate::support::{SETTINGS, command, component_file};
use crate::{browser_binding, node_binding, python, python_binding};

const COLLECTION: &str = "hosts";

/// Starts a program on a data directory and a server's URL.
type Start = dyn Fn(&Path, &str) -> Command;

/// How a host does a step.
enum Host {
    /// One process for each step: this command, for a data directory and a server.
    Program(Box<Start>),
    /// One process for each device. It reads steps and answers, a line each.
    Driver(Box<dyn Fn() -> Command>),
    /// One process for all devices, which is told of kills.
    Shared(Mutex<Driver>),
}

/// A device of a host.
struct Device<'a> {
    host: &'a Host,
    data: PathBuf,
    url: &'a str,
    driver: Option<Driver>,
}

struct Driver {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

#[test]
fn the_command() {
    through(&Host::Program(Box::new(|data, url| {
        let mut program = Command::new(command());
        program.args(["--json", "--data-dir"]).arg(data).args([
            "--url",
            url,
            "--collection",
            COLLECTION,
        ]);
        program
    })));
}

#[test]
fn the_component_under_wasmtime() {
    let Some(wasmtime) = python::wasmtime() else {
        return;
    };
    through(&Host::Program(Box::new(move |data, url| {
        std::fs::create_dir_all(data).expect("a folder");
        let mut program = Command::new(&wasmtime);
        program
            .args(["run", "-S", "http", "--dir"])
            .arg(format!("{}::/data", data.display()))
            .args(["--env", &format!("QDRANT_URL={url}")])
            .args(["--env", &format!("EDGE_SYNC_COLLECTION={COLLECTION}")])
            .arg(component_file());
        program
    })));
}

#[test]
fn the_python_package() {
    let Some((python, site)) = python_binding::package() else {
        return;
    };
    through(&Host::Driver(Box::new(move || {
        let mut driver = Command::new(&python);
        driver
            .arg(python_binding::sources().join("tests/driver.py"))
            .env("PYTHONPATH", &site)
            .env_remove("EDGE_SYNC_COMPONENT");
        driver
    })));
}

#[test]
fn the_node_package() {
    let Some(package) = node_binding::package() else {
        return;
    };
    through(&Host::Driver(Box::new(move || {
        let mut driver = Command::new("node");
        driver.arg("test/driver.mjs").current_dir(&package);
        driver
    })));
}

#[test]
fn the_browser_package() {
    let Some(package) = browser_binding::package() else {
        return;
    };
    let mut driver = package.program("node");
    driver.arg("test/driver.mjs");
    let host = Host::Shared(Mutex::new(Driver::start(driver)));
    through(&host);
    if let Host::Shared(driver) = host {
        driver.into_inner().expect("the driver").end();
    }
}

/// Does every behaviour, each with devices and a server of its own.
fn through(host: &Host) {
    let file = edge_sync_fixtures::folder().join("hosts.json");
    let text = std::fs::read_to_string(file).expect("the behaviours");
    let behaviours: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(!behaviours.is_empty());
    for behaviour in &behaviours {
        let server = QdrantDouble::start(Options::default()).expect("a server");
        let (folder, url) = (tempfile::tempdir().expect("a folder"), server.url());
        let mut devices: Vec<Device<'_>> = Vec::new();
        let steps = behaviour["steps"].as_array().expect("steps");
        for (number, step) in (1..).zip(steps) {
            let data = folder.path().join(step["device"].as_str().expect("a name"));
            let at = devices.iter().position(|device| device.data == data);
            let at = at.unwrap_or_else(|| {
                devices.push(Device {
                    host,
                    data,
                    url: &url,
                    driver: None,
                });
                devices.len() - 1
            });
            // The next step is after this one's number, which counts from 1.
            let is_killed = steps
                .get(number)
                .is_some_and(|next| next["do"] == "kill" && next["device"] == step["device"]);
            let answer = devices[at].step(step, is_killed);
            assert!(
                answers(step, &answer),
                "{}, step {number}: {step}\nanswered {answer}",
                behaviour["name"]
            );
        }
        for device in devices {
            device.close();
        }
    }
}

/// Whether an answer is what the step expects. A host that tells no kind of refusal has to name the field.
fn answers(step: &Value, answer: &Value) -> bool {
    let Some(refused) = step.get("refused") else {
        return answer.get("gives").is_some_and(|gives| {
            step.get("gives")
                .is_none_or(|expected| contains(gives, expected))
        });
    };
    match (answer.get("refused"), answer.get("words")) {
        (Some(actual), _) => contains(actual, refused),
        (None, Some(words)) => {
            let field = refused["field"].as_str().unwrap_or_default();
            words.as_str().is_some_and(|words| words.contains(field))
        }
        (None, None) => false,
    }
}

/// Whether all of `expected` is in `actual`; numbers as nearly as 32 bits tell them.
fn contains(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => expected.iter().all(|(name, value)| {
            // What is null is left out by some.
            contains(actual.get(name).unwrap_or(&Value::Null), value)
        }),
        (Value::Array(actual), Value::Array(expected)) => {
            actual.len() == expected.len()
                && actual.iter().zip(expected).all(|(a, e)| contains(a, e))
        }
        (Value::Number(actual), Value::Number(expected)) => {
            match (actual.as_f64(), expected.as_f64()) {
                (Some(a), Some(e)) => (a - e).abs() <= 1e-6 * e.abs().max(1.0),
                _ => false,
            }
        }
        _ => actual == expected,
    }
}

impl Device<'_> {
    /// `is_killed`: the next step is the kill.
    fn step(&mut self, step: &Value, is_killed: bool) -> Value {
        match (self.host, step["do"].as_str()) {
            // Its process was killed with its answer.
            (Host::Program(_), Some("kill" | "open")) => json!({ "gives": null }),
            (Host::Program(program), _) => run(program(&self.data, self.url), step, is_killed),
            (Host::Shared(driver), _) => {
                let mut driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
                driver.step(step, &self.data, self.url)
            }
            (Host::Driver(_), Some("kill")) => {
                let mut driver = self.driver.take().expect("a driver");
                driver.child.kill().expect("it is killed");
                driver.child.wait().expect("it ends");
                json!({ "gives": null })
            }
            (Host::Driver(command), _) => {
                let (data, url) = (&self.data, self.url);
                let driver = self.driver.get_or_insert_with(|| Driver::start(command()));
                driver.step(step, data, url)
            }
        }
    }

    fn close(self) {
        if let Some(driver) = self.driver {
            driver.end();
        } else if let Host::Shared(driver) = self.host {
            let mut driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
            driver.step(&json!({ "do": "close" }), &self.data, self.url);
        }
    }
}

impl Driver {
    fn start(mut command: Command) -> Self {
        for name in SETTINGS {
            command.env_remove(name);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the driver starts");
        Self {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }

    fn end(mut self) {
        drop(self.input);
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
    }

    fn step(&mut self, step: &Value, data: &Path, url: &str) -> Value {
        let mut step = step.clone();
        step["path_of_request"] = step["path"].take();
        step["path"] = json!(data);
        step["url"] = json!(url);
        step["collection"] = json!(COLLECTION);
        writeln!(self.input, "{step}").expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?} to {step}"))
    }
}

/// Does a step with a process of its own, which may be killed as soon as it has answered.
fn run(mut program: Command, step: &Value, is_killed: bool) -> Value {
    let text = |name: &str| step[name].as_str().expect("text").to_owned();
    let input = match step["do"].as_str() {
        Some("create") => {
            program.args(["create"]);
            step["config"].to_string()
        }
        Some("request") => {
            program.args(["request".to_owned(), text("method"), text("path")]);
            step["body"].to_string()
        }
        Some(what @ ("sync" | "restore")) => {
            program.arg(what);
            if let Some(direction) = step["direction"].as_str() {
                program.arg(format!("--{direction}"));
            }
            String::new()
        }
        what => panic!("what is {what:?}?"),
    };
    for name in SETTINGS {
        program.env_remove(name);
    }
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // One that needs no input may have ended.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    if is_killed {
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut line).expect("it answers");
        // Before it has closed the shard, if this is fast enough.
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        return match serde_json::from_str::<Value>(&line) {
            Ok(answer) => json!({ "gives": answer }),
            Err(_) => json!({ "words": line }),
        };
    }
    let output = child.wait_with_output().expect("it ends");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        // `create` and `restore` tell people.
        return json!({ "gives": serde_json::from_str::<Value>(&out).unwrap_or(Value::Null) });
    }
    let last = err.lines().last().unwrap_or_default();
    match serde_json::from_str::<Value>(last) {
        Ok(error) => json!({ "refused": error["error"] }),
        Err(_) => json!({ "words": err }),
    }
}

#[test]
fn an_answer_is_compared_by_what_is_expected_of_it() {
    let step = json!({ "gives": { "a": [{ "b": 1 }], "none": null } });
    let good = json!({ "gives": { "a": [{ "b": 1.0000001, "more": 2 }] } });
    assert!(answers(&step, &good));
    for bad in [
        json!({ "gives": { "a": [{ "b": 2 }] } }),
        json!({ "gives": { "a": [{ "b": 1 }, {}] } }),
        json!({ "gives": { "a": [{ "b": 1 }], "none": 1 } }),
        json!({ "refused": {} }),
    ] {
        assert!(!answers(&step, &bad), "{bad}");
    }
    let refused = json!({ "refused": { "kind": "invalid-input", "field": "x" } });
    assert!(!answers(&refused, &good));
    assert!(!answers(&refused, &json!({ "words": "trapped" })));
    assert!(answers(&refused, &json!({ "words": "error: x: wrong" })));
}
