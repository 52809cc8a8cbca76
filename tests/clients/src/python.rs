//! Python programs with packages from the Python registry, which are installed once, into virtual
//! environments in the cache.

use std::path::PathBuf;
use std::process::Command;

/// A Python that has what `requirements` lists, one package and its version a line, in the environment
/// `name` of the cache.
///
/// # Errors
/// Why there is none: no Python here, no cache, or the packages cannot be installed.
pub fn environment(name: &str, requirements: &str) -> Result<PathBuf, String> {
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
    let environment = PathBuf::from(cache).join(name);
    let python = environment.join("bin/python");
    // Says what was installed, and that it was installed as a whole.
    let installed = environment.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == requirements) {
        return Ok(python);
    }
    eprintln!("installing {}", requirements.trim().replace('\n', ", "));
    let create = ["-m", "venv", "--clear"];
    run(Command::new("python3").args(create).arg(&environment))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    run(Command::new(&python)
        .args(install)
        .args(requirements.lines()))?;
    std::fs::write(&installed, requirements)
        .map_err(|error| format!("{}: {error}", installed.display()))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    ))
}
