//! What `--help`, the completions and the manual pages say.

use std::path::Path;

use clap::{Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;
use edge_sync_host::Error;

use crate::arguments::Arguments;
use crate::output::{Output, exit, print_part};

/// What a command's help says of the settings that all commands have.
const SHARED: &str =
    "Settings that every command has (--data-dir, --json, --url, ...): edge-sync --help";

/// The heading of those settings.
const SETTINGS: &str = "Settings";

/// Examples by command.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "create",
        &[
            "edge-sync create --size 3 --distance Euclid",
            "edge-sync create --config '{\"vectors\": {\"image\": {\"size\": 512, \"distance\": \"Cosine\"}}}'",
        ],
    ),
    (
        "upsert",
        &[
            "edge-sync upsert points.jsonl",
            "edge-sync upsert '{\"id\": 1, \"vector\": [0.1, 0.2, 0.3], \"payload\": {\"name\": \"red\"}}'",
            "edge-sync upsert points.csv --id-column key --text-column zip",
            "edge-sync upsert --body body.json",
        ],
    ),
    (
        "delete",
        &[
            "edge-sync delete 1 2",
            "edge-sync delete --filter '{\"must\": [{\"key\": \"warm\", \"match\": {\"value\": true}}]}'",
        ],
    ),
    (
        "retrieve",
        &[
            "edge-sync retrieve 1 2 --with-vector",
            "edge-sync retrieve '{\"ids\": [1], \"with_payload\": [\"name\"]}'",
        ],
    ),
    (
        "search",
        &[
            "edge-sync search --vector 0.1,0.2,0.3 --limit 5 --with-payload",
            "edge-sync search '{\"query\": {\"recommend\": {\"positive\": [1]}}, \"limit\": 5}'",
            "edge-sync search query.json",
        ],
    ),
    ("scroll", &["edge-sync scroll --limit 100 --offset 101"]),
    (
        "count",
        &["edge-sync count", "edge-sync count --filter @filter.json"],
    ),
    ("facet", &["edge-sync facet '{\"key\": \"warm\"}'"]),
    (
        "groups",
        &["edge-sync groups '{\"query\": [0.1, 0.2, 0.3], \"group_by\": \"name\", \"limit\": 3}'"],
    ),
    (
        "matrix",
        &["edge-sync matrix pairs '{\"sample\": 10, \"limit\": 3}'"],
    ),
    (
        "batch",
        &["edge-sync batch '{\"operations\": [{\"delete\": {\"points\": [1]}}]}'"],
    ),
    (
        "payload",
        &[
            "edge-sync payload set '{\"payload\": {\"seen\": 3}, \"points\": [1, 2]}'",
            "edge-sync payload delete '{\"keys\": [\"seen\"], \"points\": [1]}'",
        ],
    ),
    (
        "vectors update",
        &["edge-sync vectors update '{\"points\": [{\"id\": 1, \"vector\": [0.1, 0.2, 0.3]}]}'"],
    ),
    (
        "vectors delete",
        &["edge-sync vectors delete '{\"points\": [1], \"vector\": [\"image\"]}'"],
    ),
    (
        "vectors create",
        &[
            "edge-sync vectors create image '{\"dense\": {\"size\": 512, \"distance\": \"Cosine\"}}'",
        ],
    ),
    ("vectors drop", &["edge-sync vectors drop image"]),
    (
        "request",
        &["edge-sync request POST /points/count '{\"exact\": true}'"],
    ),
    (
        "index create",
        &[
            "edge-sync index create name keyword",
            "edge-sync index create year '{\"type\": \"integer\", \"range\": true}'",
        ],
    ),
    ("index delete", &["edge-sync index delete name"]),
    ("index list", &["edge-sync index list"]),
    ("prepare", &["edge-sync prepare"]),
    ("optimize", &["edge-sync optimize"]),
    ("flush", &["edge-sync flush"]),
    ("info", &["edge-sync --json info"]),
    (
        "sync",
        &[
            "edge-sync sync --url http://127.0.0.1:6333 --collection colours",
            "edge-sync sync --watch --every 5m",
        ],
    ),
    (
        "serve",
        &["edge-sync serve --listen 127.0.0.1:6334 --collection colours"],
    ),
    (
        "restore",
        &[
            "edge-sync restore --url http://127.0.0.1:6333 --collection colours",
            "edge-sync restore --snapshot shard.snapshot",
        ],
    ),
    ("status", &["edge-sync status"]),
    ("queue show", &["edge-sync queue show --limit 3"]),
    ("queue skip", &["edge-sync queue skip --count 1 --yes"]),
    ("rejected list", &["edge-sync rejected list"]),
    (
        "rejected retry",
        &[
            "edge-sync rejected retry 7 8",
            "edge-sync rejected retry --all",
        ],
    ),
    ("rejected drop", &["edge-sync rejected drop --all"]),
    (
        "completions",
        &["edge-sync completions bash > ~/.local/share/bash-completion/completions/edge-sync"],
    ),
    (
        "man",
        &[
            "edge-sync man | man -l -",
            "edge-sync man ~/.local/share/man/man1",
        ],
    ),
];

/// The command line as it was given; ends the process where it is wrong, or asks for help.
pub fn parse() -> Arguments {
    let mut command = command();
    let read = command
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| {
            Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
        });
    read.unwrap_or_else(|error| {
        if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
            Output::usage_error(&words(&error.to_string()));
            std::process::exit(exit::USAGE.into());
        }
        error.exit()
    })
}

/// What is wrong, without how the command is used.
fn words(error: &str) -> String {
    let lines = error.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<&str> = lines.map(str::trim).collect();
    let words = words.join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).to_owned()
}

/// The command with what each help says.
fn command() -> Command {
    let mut command = Arguments::command();
    // Puts the settings that all commands have into each.
    command.build();
    command.mut_subcommands(|subcommand| explained(subcommand, ""))
}

/// A command shows its own options; those that all have are shown once, above.
fn explained(command: Command, parent: &str) -> Command {
    let name = match parent {
        "" => command.get_name().to_owned(),
        parent => format!("{parent} {}", command.get_name()),
    };
    let mut help = String::new();
    if let Some((_, examples)) = EXAMPLES.iter().find(|(of, _)| *of == name) {
        help.push_str("Examples:\n");
        for example in *examples {
            help.push_str(&format!("  {example}\n"));
        }
        help.push('\n');
    }
    help.push_str(SHARED);
    command
        .mut_args(|argument| match argument.get_help_heading() {
            Some(SETTINGS) => argument.hide(true),
            _ => argument,
        })
        .after_help(help)
        .mut_subcommands(|subcommand| explained(subcommand, &name))
}

pub fn completions(shell: Shell) -> Result<u8, Error> {
    let mut script = Vec::new();
    // Completions are of all options, wherever the help shows them.
    clap_complete::generate(shell, &mut Arguments::command(), "edge-sync", &mut script);
    print_part(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub fn man(folder: Option<&Path>) -> Result<u8, Error> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    };
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command())
            .render(&mut page)
            .map_err(failed("write", Path::new("the manual page")))?;
        print_part(&String::from_utf8_lossy(&page))?;
        return Ok(0);
    };
    std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
    clap_mangen::generate_to(command(), folder)
        .map_err(failed("write the manual pages to", folder))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments as a shell splits them, up to a pipe or a redirection.
    fn split(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quoted = false;
        for character in line.chars() {
            match character {
                '\'' => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                ' ' if !quoted => words.extend(word.take()),
                '|' | '>' if !quoted => break,
                character => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        words
    }

    fn leaves(command: &Command, name: &str, into: &mut Vec<String>) {
        let mut has_commands = false;
        for subcommand in command.get_subcommands() {
            if subcommand.get_name() != "help" {
                has_commands = true;
                let name = format!("{name} {}", subcommand.get_name());
                leaves(subcommand, name.trim(), into);
            }
        }
        if !has_commands {
            into.push(name.to_owned());
        }
    }

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_it_takes() {
        let mut names = Vec::new();
        leaves(&Arguments::command(), "", &mut names);
        let listed: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, listed, "in this order");
        for (name, examples) in EXAMPLES {
            for example in *examples {
                let words = split(example);
                let parsed = command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{name}: {example}: {:?}", parsed.err());
                let bodies = words.iter().filter(|word| word.starts_with('{'));
                for body in bodies {
                    let json: Result<serde_json::Value, _> = serde_json::from_str(body);
                    assert!(json.is_ok(), "{example}");
                }
            }
        }
    }

    #[test]
    fn a_commands_help_shows_its_own_options_and_the_examples() {
        let help = |words: &[&str]| {
            let error = command().try_get_matches_from(words).unwrap_err();
            error.to_string()
        };
        for long in ["-h", "--help"] {
            let upsert = help(&["edge-sync", "upsert", long]);
            assert!(
                upsert.contains("--batch-size") && upsert.contains("Examples:"),
                "{upsert}"
            );
            assert!(
                upsert.contains(SHARED) && !upsert.contains("--memory-mib"),
                "{upsert}"
            );
            let all = help(&["edge-sync", long]);
            assert_eq!(all.matches("--memory-mib").count(), 1, "{all}");
        }
        // They are taken all the same.
        let matches = command().try_get_matches_from(["edge-sync", "info", "--memory-mib", "64"]);
        let arguments = Arguments::from_arg_matches(&matches.unwrap()).unwrap();
        assert_eq!(arguments.settings.memory_mib, Some(64));
    }
}
