//! Programs of other languages that tests need: run, or missing with a word.

use std::io::Write as _;
use std::process::{Command, Output};

/// Runs a program that has to succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Says why a test is left out. On CI none is: there it is a failure.
pub fn skip(reason: &str) {
    assert!(!is_ci(), "not to be skipped on CI: {reason}");
    say(&format!("skipped: {reason}"));
}

/// Tells a person, also if the test passes: what is printed by a macro is kept from sight then.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
