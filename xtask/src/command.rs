//! Child processes whose failures say what was run, what it printed and what to install.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::diagnostics;

/// How much of a failed command's output is repeated.
const TAIL_LINES: usize = 40;

/// Runs a command and returns what it wrote to stdout; its stderr is shown only if it fails.
///
/// # Errors
/// Where the program is missing (naming what to install) or exits with a failure.
pub fn capture(command: &mut Command) -> Result<String> {
    output(command).map(|(stdout, _)| stdout)
}

/// Like [`capture`], with what it wrote to stderr after that.
///
/// # Errors
/// As there.
pub fn capture_all(command: &mut Command) -> Result<String> {
    output(command).map(|(stdout, stderr)| stdout + &stderr)
}

/// Like [`capture_all`], where a failure is one of two answers: whether the command succeeded, and what
/// it wrote.
///
/// # Errors
/// Where the program is missing.
pub fn attempt(command: &mut Command) -> Result<(bool, String)> {
    let (status, stdout, stderr) = finished(command)?;
    Ok((status.success(), stdout + &stderr))
}

fn output(command: &mut Command) -> Result<(String, String)> {
    let (status, stdout, stderr) = finished(command)?;
    if status.success() {
        return Ok((stdout, stderr));
    }
    let text = tail(&(stdout + &stderr));
    bail!("{} ({status})\n{text}", line(command))
}

fn finished(command: &mut Command) -> Result<(ExitStatus, String, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status, text(&output.stdout), text(&output.stderr)))
}

/// Runs a command whose output goes to the terminal.
///
/// # Errors
/// Where the program is missing or exits with a failure.
pub fn show(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .map_err(|error| not_started(command, error))?;
    if !status.success() {
        bail!("{} ({status})", line(command));
    }
    Ok(())
}

/// Runs a cargo command that compiles and was given [`diagnostics::AS_MESSAGES`], and shows what
/// concerns whoever builds.
///
/// # Errors
/// Where cargo is missing or exits with a failure.
pub fn compile(command: &mut Command) -> Result<()> {
    lines(command, |line| {
        if let Some(text) = diagnostics::shown(line) {
            eprintln!("{text}");
        }
    })
}

/// Runs a command and hands each line of its stdout to `see`. Its stderr goes to the terminal.
///
/// # Errors
/// Where the program is missing or exits with a failure.
pub fn lines(command: &mut Command, mut see: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(command, error))?;
    let read = read_lines(&mut child, &mut see);
    let status = child.wait().with_context(|| line(command))?;
    read.with_context(|| line(command))?;
    if !status.success() {
        bail!("{} ({status})", line(command));
    }
    Ok(())
}

fn read_lines(child: &mut Child, see: &mut impl FnMut(&str)) -> Result<()> {
    let mut reader = BufReader::new(child.stdout.take().context("its output is not piped")?);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        see(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']));
        bytes.clear();
    }
    Ok(())
}

/// Whether a program of this name can be started.
pub fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn not_started(command: &Command, error: std::io::Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return anyhow!("{}: {error}", line(command));
    }
    let program = name(command);
    let advice = match program.as_str() {
        "git" => "install git (Debian, Ubuntu: apt-get install git)".to_owned(),
        "apt-get" | "apt-cache" | "dpkg" => format!("{program} is part of Debian and its kin"),
        "cargo" | "rustc" => "install Rust 1.95 or newer".to_owned(),
        _ => format!("install {program}"),
    };
    anyhow!("{} cannot be started: {advice}", line(command))
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().map_or_else(
        || program.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn line(command: &Command) -> String {
    let mut line = name(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_repeats_what_was_said() {
        let error = capture(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"]))
            .expect_err("it exits with 3");
        let text = error.to_string();
        assert!(text.contains("out") && text.contains("why"), "{text}");
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = capture(&mut Command::new("no-such-program-here")).expect_err("missing");
        assert!(
            error.to_string().contains("install no-such-program-here"),
            "{error}"
        );
    }

    #[test]
    fn lines_are_handed_over() {
        let mut seen = Vec::new();
        lines(Command::new("printf").arg("a\\nb"), |line| {
            seen.push(line.to_owned());
        })
        .expect("printf runs");
        assert_eq!(seen, ["a", "b"]);
    }
}
