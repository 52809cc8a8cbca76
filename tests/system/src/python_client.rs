//! Qdrant's own Python client, and the vector stores of frameworks that use it, unchanged, against
//! `edge-sync serve` and the server double.
//!
//! The client comes from the Python registry, once, into a virtual environment in the cache. Where
//! there is no Python the test is skipped with a message; on CI it never is.

use std::path::{Path, PathBuf};
use std::process::Command;

use edge_sync_double::{Options, QdrantDouble};

use crate::foreign::run;
use crate::python;
use crate::served::{Served, edge_sync};
use crate::support::repository;

/// The programs, in `tests/clients/python/`, and what each prints at the end.
const PROGRAMS: [(&str, &str); 3] = [
    ("basics.py", "basics: done\n"),
    ("queries.py", "queries: done\n"),
    ("local_and_remote.py", "local and remote: done\n"),
];

pub const KEY: &str = "a-key-of-the-test";

#[test]
fn the_python_client_works_unchanged() {
    let requirements = programs().join("requirements.txt");
    let Some(python) = python::environment("python-client", &requirements) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (served, double) = servers(folder.path());
    for (program, end) in PROGRAMS {
        let program = programs().join(program);
        // Snapshots and a second collection are the only things that only the double has.
        for (url, kind) in [(served.url(), "device"), (&double.url(), "server")] {
            let output = run(Command::new(&python).arg(&program).args([url, KEY, kind]));
            let printed = String::from_utf8_lossy(&output.stdout);
            assert_eq!(printed, end, "{} against {url}", program.display());
        }
    }
}

#[test]
fn the_stores_of_frameworks_work_unchanged() {
    let requirements = programs().join("stores-requirements.txt");
    let Some(python) = python::environment("python-stores", &requirements) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (served, double) = servers(folder.path());
    for url in [served.url(), &double.url()] {
        let mut stores = Command::new(&python);
        stores.arg(programs().join("stores.py")).args([url, KEY]);
        let output = run(&mut stores);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "stores: done\n",
            "against {url}"
        );
    }
}

/// A device in `folder` without a shard, and a server, both of which ask for a key.
pub fn servers(folder: &Path) -> (Served, QdrantDouble) {
    let mut command = edge_sync(folder, &["--json", "serve", "--listen", "127.0.0.1:0"]);
    command.env("EDGE_SYNC_SERVE_API_KEY", KEY);
    let double = QdrantDouble::start(Options {
        api_key: Some(KEY.to_owned()),
        ..Options::default()
    });
    (Served::spawn(command), double.expect("a server"))
}

fn programs() -> PathBuf {
    repository().join("tests/clients/python")
}
