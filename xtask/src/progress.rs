//! What a chore tells the person who waits for it: a spinner on a terminal, plain lines in a pipe.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Announces work whose own output is shown, such as a cargo build.
pub fn heading(what: &str) {
    eprintln!("==> {what}");
}

/// A line of detail.
pub fn note(what: &str) {
    eprintln!("    {what}");
}

/// Does silent work under a line that says what it is and, once done, how long it took.
///
/// # Errors
/// Those of `work`, with `what` as context.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    // Hidden by itself where stderr is no terminal.
    let bar = ProgressBar::new_spinner();
    if bar.is_hidden() {
        heading(what);
    } else {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    let result = work();
    let terminal = !bar.is_hidden();
    bar.finish_and_clear();
    if terminal {
        heading(what);
    }
    if result.is_ok() {
        note(&format!("done in {:.1} s", started.elapsed().as_secs_f32()));
    }
    result.with_context(|| what.to_owned())
}

/// Reports what stopped a chore, with its causes.
pub fn failure(error: &anyhow::Error) {
    eprintln!("\ncargo xtask: {error}");
    for cause in error.chain().skip(1) {
        for line in cause.to_string().lines() {
            eprintln!("    {line}");
        }
    }
}
