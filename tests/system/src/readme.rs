//! The README does what it says, and so does `docs/commands.md`, which goes on where the README ends: their
//! shell blocks are run in order, and print what they show.
//!
//! Info strings of code blocks mean:
//! - `sh`: run; one shell for all of them, so that variables and the working directory stay.
//! - `sh no-test: REASON`: not run.
//! - `sh needs: PROGRAM`: run where that program is installed, and on CI always; tests bring a `wasmtime` of
//!   their own. With `python3` and `npm` come the packages that are made for them.
//! - `text output`: exactly what the block before it prints.
//! - `text output varies`: the same, but numbers and times may differ.
//! - `rust embed.rs`: a passage of `host/examples/embed.rs`.
//!
//! `UPDATE_README=1 cargo xtask test readme` rewrites the outputs with what was printed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use edge_sync_double::{Options, QdrantDouble};
use regex::Regex;

use crate::foreign::skip;
use crate::support::{SETTINGS, command, component, component_file, repository};
use crate::{node_binding, python, python_binding};

/// The server's address in the README; the double's takes its place.
const README_URL: &str = "http://127.0.0.1:6333";

/// Where `serve` listens in the README; a free port takes its place.
const README_ADDRESS: &str = "127.0.0.1:6334";

/// Names the folder with what `cargo xtask package` made.
const PACKAGES: &str = "EDGE_SYNC_PACKAGES";

/// What is run, in this order.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/commands.md"];

#[test]
fn commands_print_what_the_readme_shows() {
    let double = QdrantDouble::start(Options::default()).expect("a server");
    // Compiled by now, so that no command says that it prepares it.
    let _ = component();
    let mut all = Vec::new();
    for document in DOCUMENTS {
        let steps = steps(document, &read(document));
        assert!(
            steps.iter().any(|step| step.output.is_some()),
            "no block of {document} has an output: its form is not understood"
        );
        all.extend(steps);
    }
    let steps = all;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    // Taken by `serve` in a moment.
    drop(free);
    let printed = run(&steps, &double.url(), &address);

    if std::env::var_os("UPDATE_README").is_some() {
        for document in DOCUMENTS {
            let text = updated(document, &read(document), &steps, &printed);
            fs::write(repository().join(document), text).expect("the document is written");
        }
        return;
    }
    let mut wrong = String::new();
    for (step, printed) in steps.iter().zip(&printed) {
        let Some(output) = &step.output else { continue };
        let same = if output.varies {
            masked(&output.text) == masked(printed)
        } else {
            output.text == *printed
        };
        if !same {
            let _ = write!(
                wrong,
                "\n{}:{}\n--- shown\n{}--- printed\n{printed}",
                step.document, step.line, output.text
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}\nUPDATE_README=1 rewrites the outputs"
    );
}

#[test]
fn every_command_and_variable_is_in_the_documents() {
    let readme = read("docs/commands.md");
    let help = Command::new(program())
        .arg("--help")
        .output()
        .expect("edge-sync --help");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Longer descriptions go on in lines that are indented further.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(!commands.is_empty(), "{help}");
    for command in commands {
        assert!(
            readme.contains(&format!("| `{command}")),
            "docs/commands.md: the table of commands lacks {command}"
        );
    }
    let variable = Regex::new(r"\b(?:EDGE_SYNC|QDRANT)_[A-Z_]+\b").expect("a pattern");
    for found in variable.find_iter(&help) {
        assert!(
            readme.contains(&format!("| `{}`", found.as_str())),
            "docs/commands.md: the table of variables lacks {}",
            found.as_str()
        );
    }
}

#[test]
fn rust_blocks_are_passages_of_the_example() {
    let readme = read("README.md");
    let example =
        fs::read_to_string(repository().join("host/examples/embed.rs")).expect("the example");
    let flat = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    };
    let example = flat(&example);
    let blocks: Vec<Fence> = fences(&readme)
        .into_iter()
        .filter(|fence| fence.info == "rust embed.rs")
        .collect();
    assert!(!blocks.is_empty(), "the README shows no example");
    for block in blocks {
        let passage = flat(&block.text);
        assert!(
            example
                .windows(passage.len())
                .any(|window| window == passage),
            "README.md:{} is not in host/examples/embed.rs",
            block.line
        );
    }
}

/// Whoever follows CONTRIBUTING.md finds each file, and in one of the files of a step what the step names.
#[test]
fn the_places_of_a_change_are_there() {
    let text = read("CONTRIBUTING.md");
    let code = Regex::new(r"`([^`]+)`").expect("a pattern");
    let name = Regex::new(r"^[A-Za-z_]+!?$").expect("a pattern");
    let step = Regex::new(r"\n(?:\d+\. |- |\n)").expect("a pattern");
    // A short name is of a file beside the last one, or above it.
    let mut folder = PathBuf::new();
    let mut wrong = Vec::new();
    let mut found = 0;
    for step in step.split(&text) {
        let mut files = String::new();
        let mut names = Vec::new();
        for token in code
            .captures_iter(step)
            .map(|capture| capture[1].to_owned())
        {
            let is_no_place = token.contains([' ', '=', '\n'])
                || token.contains("CRATE")
                || token.starts_with('/');
            if is_no_place {
                continue;
            }
            if name.is_match(&token) {
                names.push(token);
                continue;
            }
            let above = folder.parent().unwrap_or(&folder).to_owned();
            let beside = [PathBuf::new(), folder.clone(), above];
            let mut paths = beside.iter().map(|base| base.join(&token));
            let Some(path) = paths.find(|path| repository().join(path).exists()) else {
                wrong.push(format!("there is no {token}"));
                continue;
            };
            found += 1;
            if repository().join(&path).is_dir() {
                folder = path;
                continue;
            }
            files += &fs::read_to_string(repository().join(&path)).expect("text");
            folder = path.parent().expect("a folder").to_owned();
        }
        if !files.is_empty() {
            let lost = names.into_iter().filter(|name| !files.contains(name));
            wrong.extend(lost.map(|name| format!("no file of its step has {name}")));
        }
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md: {wrong:?}");
    assert!(found > 40, "its form is not understood: {found}");
}

/// A code block.
struct Fence {
    /// Line number of its first fence, from 1.
    line: usize,
    info: String,
    text: String,
}

/// A shell block, and the output shown after it.
struct Step {
    document: &'static str,
    line: usize,
    script: String,
    output: Option<Output>,
}

struct Output {
    line: usize,
    text: String,
    varies: bool,
}

fn fences(markdown: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut open: Option<Fence> = None;
    for (line, text) in (1..).zip(markdown.lines()) {
        match (text.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Fence {
                    line,
                    info: info.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => fences.extend(open.take()),
            (None, Some(fence)) => {
                fence.text.push_str(text);
                fence.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block has no end");
    fences
}

/// The blocks to run.
fn steps(document: &'static str, text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut runs = false;
    for fence in fences(text) {
        let (language, rest) = fence
            .info
            .split_once(' ')
            .unwrap_or((fence.info.as_str(), ""));
        match (language, rest.trim()) {
            ("sh", "") => runs = true,
            ("sh", rest) => {
                runs = match (rest.strip_prefix("no-test:"), rest.strip_prefix("needs:")) {
                    (Some(reason), _) => {
                        assert!(!reason.trim().is_empty(), "{document}:{}: why?", fence.line);
                        false
                    }
                    (_, Some(program)) => {
                        let found = is_there(program.trim());
                        if !found {
                            skip(&format!("{document}:{}: it {rest}", fence.line));
                        }
                        found
                    }
                    _ => panic!("{document}:{}: what is `{rest}`?", fence.line),
                };
            }
            ("text", "output" | "output varies") if runs => {
                let step = steps.last_mut().expect("output after a shell block");
                assert!(
                    step.output.is_none(),
                    "{document}:{}: a second output",
                    fence.line
                );
                step.output = Some(Output {
                    line: fence.line,
                    text: fence.text,
                    varies: rest.ends_with("varies"),
                });
                continue;
            }
            _ => continue,
        }
        if runs {
            steps.push(Step {
                document,
                line: fence.line,
                script: fence.text,
                output: None,
            });
        }
    }
    steps
}

/// Runs all steps in one shell; what each printed, on both streams.
fn run(steps: &[Step], url: &str, address: &str) -> Vec<String> {
    const MARK: &str = "@@@@ README step";
    let folder = tempfile::tempdir().expect("a folder");
    let programs = folder.path().join("programs");
    let work = folder.path().join("work");
    fs::create_dir(&programs).expect("a folder");
    fs::create_dir(&work).expect("a folder");
    let link = |program: PathBuf, name| {
        std::os::unix::fs::symlink(program, programs.join(name)).expect("a link");
    };
    link(program(), "edge-sync");
    if let Some(wasmtime) = python::wasmtime() {
        link(wasmtime, "wasmtime");
    }
    let clone = folder.path().join("clone");
    make_products(&clone.join("target/edge-sync"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(programs.clone()).chain(std::env::split_paths(&path)))
            .expect("a PATH");

    let mut script = String::from("exec 2>&1\n");
    for step in steps {
        let _ = write!(
            script,
            "echo '{MARK}'\n{}",
            step.script
                .replace(README_URL, url)
                .replace(README_ADDRESS, address)
        );
    }
    let script_file = folder.path().join("readme.sh");
    fs::write(&script_file, &script).expect("a script");

    let mut shell = Command::new("sh");
    shell
        .arg("-e")
        .arg(&script_file)
        .current_dir(&work)
        .stdin(Stdio::null())
        .env("PATH", path)
        .env("CLONE", &clone)
        // Nobody's own settings file.
        .env("XDG_CONFIG_HOME", folder.path());
    for name in SETTINGS {
        shell.env_remove(name);
    }
    let ran = shell.output().expect("sh runs");
    let text = String::from_utf8(ran.stdout)
        .expect("UTF-8")
        .replace(url, README_URL)
        .replace(address, README_ADDRESS);
    let mark = format!("{MARK}\n");
    let printed: Vec<String> = text.split(&mark).skip(1).map(str::to_owned).collect();
    assert!(
        ran.status.success() && printed.len() == steps.len(),
        "{}: {}, having printed:\n{}",
        steps
            .get(printed.len().saturating_sub(1))
            .map_or(String::new(), |step| format!(
                "{}:{}",
                step.document, step.line
            )),
        ran.status,
        printed.last().unwrap_or(&text),
    );
    printed
}

/// What `cargo xtask package` leaves in a clone: that itself, if it was made for this run of the tests, and
/// otherwise as much as the documents name.
fn make_products(folder: &Path) {
    if let Some(packages) = std::env::var_os(PACKAGES) {
        fs::create_dir_all(folder.parent().expect("a parent")).expect("a folder");
        std::os::unix::fs::symlink(packages, folder).expect("a link");
        return;
    }
    fs::create_dir_all(folder).expect("a folder");
    let component = fs::canonicalize(component_file()).expect("the component");
    std::os::unix::fs::symlink(component, folder.join("edge_sync.wasm")).expect("a link");
    if let Some(wheel) = python_binding::wheel() {
        let name = wheel.file_name().expect("a name");
        fs::copy(&wheel, folder.join(name)).expect("a copy");
    }
    node_binding::pack(folder);
}

/// The document with the outputs replaced.
fn updated(document: &str, old: &str, steps: &[Step], printed: &[String]) -> String {
    let mut text = String::new();
    let mut lines = (1..).zip(old.lines());
    while let Some((number, line)) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let of_it = steps.iter().zip(printed);
        let mut of_it = of_it.filter(|(step, _)| step.document == document);
        let shown = of_it.find_map(|(step, printed)| {
            let output = step.output.as_ref()?;
            (output.line == number).then_some((output, printed))
        });
        if let Some((output, printed)) = shown {
            // Kept if it says the same, so that times do not change at every update.
            let keep = output.varies && masked(&output.text) == masked(printed);
            text.push_str(if keep { &output.text } else { printed });
            text.push_str("```\n");
            for (_, line) in lines.by_ref() {
                if line.starts_with("```") {
                    break;
                }
            }
        }
    }
    text
}

/// The text with numbers and times made alike.
fn masked(text: &str) -> String {
    let time = Regex::new(r"(less than a second|\d+ (second|minute|hour|day)s?) ago");
    let number = Regex::new(r"\d+([.,]\d+)*");
    let text = time.expect("a pattern").replace_all(text, "# ago");
    number
        .expect("a pattern")
        .replace_all(&text, "#")
        .into_owned()
}

#[test]
fn masks_hide_numbers_and_times_only() {
    assert_eq!(masked("12,345.6 MiB, 3 minutes ago"), "# MiB, # ago");
    assert_eq!(masked("less than a second ago"), masked("2 days ago"));
    assert_ne!(masked("5 points"), masked("5 vectors"));
}

fn is_there(program: &str) -> bool {
    match program {
        "wasmtime" if python::wasmtime().is_some() => return true,
        // Without what the packages are made with, there is nothing to install.
        "python3" => return python_binding::package().is_some(),
        "npm" => return node_binding::package().is_some(),
        _ => {}
    }
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

fn read(document: &str) -> String {
    fs::read_to_string(repository().join(document))
        .unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The `edge-sync` command that `cargo xtask` built.
fn program() -> PathBuf {
    fs::canonicalize(command()).expect("the edge-sync command")
}
