//! Python for tests: virtual environments in the cache, each with the packages that a file lists.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::foreign::{run, skip};
use crate::support::repository;

/// The Python of an environment called `name` that has what `requirements` lists. Installed once, and
/// again when the list changes.
///
/// None where there is no Python, with a line that says so; on CI that is a failure.
pub fn environment(name: &str, requirements: &Path) -> Option<PathBuf> {
    match find(name, requirements) {
        Ok(python) => Some(python),
        Err(reason) => {
            skip(&reason);
            None
        }
    }
}

/// The `wasmtime` command, from the Python package that ships it.
pub fn wasmtime() -> Option<PathBuf> {
    let requirements = repository().join("tests/clients/wasmtime-command/requirements.txt");
    let python = environment("wasmtime-command", &requirements)?;
    // The script that pip makes of it hands on to a file without the permission to run.
    let find = "import pathlib, wasmtime_cli as w; print(pathlib.Path(w.__file__).parent)";
    let folder = run(Command::new(python).args(["-c", find])).stdout;
    let folder = String::from_utf8(folder).expect("a path in UTF-8");
    let program = Path::new(folder.trim()).join("wasmtime");
    make_runnable(&program);
    Some(program)
}

fn make_runnable(program: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut permissions = program.metadata().expect("the program").permissions();
    if permissions.mode() & 0o111 == 0 {
        permissions.set_mode(0o755);
        std::fs::set_permissions(program, permissions).expect("it may be run");
    }
}

fn find(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let text = std::fs::read_to_string(requirements).expect("the requirements");
    let packages: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    // Two tests may want the same.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    edge_sync_clients::python::environment(name, &packages.join("\n"))
}
