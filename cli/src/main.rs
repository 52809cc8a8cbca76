//! `edge-sync`: a local Qdrant Edge shard, kept in step with a collection on a Qdrant server.

mod arguments;
mod backend;
mod collections;
mod exchange;
mod flags;
mod help;
mod input;
mod metrics;
mod operator;
mod output;
mod queue;
mod refusal;
mod serve;
mod session;
mod settings;
mod shard;
mod signals;
mod status;
mod upsert;
mod write;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use edge_sync_host::{Error, has_shard};
use tracing_subscriber::EnvFilter;

use crate::arguments::{Command, LogFormat, Method};
use crate::output::{Output, exit_code};
use crate::session::Session;

fn main() -> ExitCode {
    let arguments = help::parse();
    let output = Output {
        json: arguments.json,
        to_log: arguments.log_format == Some(LogFormat::Json),
    };
    log(output);
    match &arguments.command {
        Command::Completions { shell } => return ended(help::completions(*shell), output, false),
        Command::Man { folder } => return ended(help::man(folder.as_deref()), output, false),
        _ => {}
    }
    for unknown in settings::unknown_variables() {
        output.note(&unknown);
    }
    let session = match Session::new(&arguments, output) {
        Ok(session) => session,
        Err(error) => return ended(Err(error), output, false),
    };
    let outcome = run(&session, arguments.command);
    let has_shard = has_shard(session.settings.data_dir());
    ended(outcome, output, has_shard)
}

fn ended(outcome: Result<u8, Error>, output: Output, has_shard: bool) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&error, has_shard);
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Logs to stderr what `EDGE_SYNC_LOG` asks for (`edge_sync_host=debug`), and nothing without it:
/// what a person should know is printed anyway. With `--json`, each line is a JSON object. With
/// `--log-format json` all of it is in the log, and a line for each request to `serve`.
fn log(output: Output) {
    let unset = match output.to_log {
        true => "off,edge_sync_rest=info",
        false => "off",
    };
    let mut filter =
        EnvFilter::try_from_env("EDGE_SYNC_LOG").unwrap_or_else(|_| EnvFilter::new(unset));
    if output.to_log
        && let Ok(notes) = format!("{}=info", output::LOG_TARGET).parse()
    {
        filter = filter.add_directive(notes);
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && console::colors_enabled_stderr())
        .with_writer(std::io::stderr);
    if output.json || output.to_log {
        log.json().init();
    } else {
        log.init();
    }
}

fn run(session: &Session, command: Command) -> Result<u8, Error> {
    match command {
        Command::Create(arguments) => session.create(&arguments),
        Command::Upsert(arguments) => session.upsert(&arguments),
        Command::Delete(arguments) => session.delete(&arguments),
        Command::Retrieve(arguments) => session.retrieve(&arguments),
        Command::Search(body) => session.search(&body),
        Command::Scroll(arguments) => session.scroll(&arguments),
        Command::Count(arguments) => session.count(&arguments),
        Command::Facet(body) => session.request(Method::Post, "/facet", &body),
        Command::Groups(body) => session.request(Method::Post, "/points/query/groups", &body),
        Command::Matrix(arguments) => session.request(
            Method::Post,
            &format!("/points/search/matrix/{}", arguments.form.path()),
            &arguments.body,
        ),
        Command::Batch(body) => session.batch(&body),
        Command::Payload(arguments) => session.payload(&arguments),
        Command::Vectors(command) => session.vectors(&command),
        Command::Request(arguments) => {
            session.request(arguments.method, &arguments.path, &arguments.body)
        }
        Command::Index(command) => session.index(&command),
        Command::Prepare => session.prepare(),
        Command::Optimize(arguments) => session.optimize(&arguments),
        Command::Flush => session.flush(),
        Command::Info => session.info(),
        Command::Sync(arguments) => session.sync(&arguments),
        Command::Serve(arguments) => session.serve(&arguments),
        Command::Restore(arguments) => session.restore(&arguments),
        Command::Status => session.status(),
        Command::Queue(command) => session.queue(&command),
        Command::Rejected(command) => session.rejected(&command),
        // They need no settings: `main` has answered them.
        Command::Completions { .. } | Command::Man { .. } => Ok(0),
    }
}
