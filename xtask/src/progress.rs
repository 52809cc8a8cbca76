//! What a chore tells the person who waits for it: lines, and on a terminal a spinner below them.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// The spinner of the step that is being done, which lines must not be written across.
static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Announces work.
pub fn heading(what: &str) {
    write(&format!("==> {what}"));
}

/// A line of detail.
pub fn note(what: &str) {
    write(&format!("    {what}"));
}

/// Does silent work and says what it is, before it, and how long it took, after it.
///
/// # Errors
/// Those of `work`, with `what` as context.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(what);
    let started = Instant::now();
    // It hides itself where stderr is no terminal.
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("    {spinner} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    replace_spinner(Some(spinner.clone()));
    let result = work();
    replace_spinner(None);
    spinner.finish_and_clear();
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

fn write(line: &str) {
    match SPINNER.lock().ok().and_then(|spinner| spinner.clone()) {
        Some(spinner) => spinner.suspend(|| eprintln!("{line}")),
        None => eprintln!("{line}"),
    }
}

fn replace_spinner(spinner: Option<ProgressBar>) {
    if let Ok(mut current) = SPINNER.lock() {
        *current = spinner;
    }
}
