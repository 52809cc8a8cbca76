//! Qdrant's own client for JavaScript, unchanged, against `edge-sync serve` and the server double.

use std::process::Command;

use crate::foreign::{run, skip};
use crate::npm;
use crate::python_client::{KEY, servers};
use crate::support::repository;

#[test]
fn the_javascript_client_works_unchanged() {
    let place = match npm::place("node-client") {
        Ok(place) => place,
        Err(reason) => return skip(&reason),
    };
    let package = repository().join("tests/clients/node");
    npm::install(&package, &place);
    // It finds its packages beside itself.
    let program = place.join("client.mjs");
    std::fs::copy(package.join("client.mjs"), &program).expect("a copy");
    let folder = tempfile::tempdir().expect("a folder");
    let (served, double) = servers(folder.path());
    for url in [served.url(), &double.url()] {
        let output = run(Command::new("node").arg(&program).args([url, KEY]));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "client: done\n",
            "against {url}"
        );
    }
}
