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
mod settings;
mod shard;
mod signals;
mod status;
mod upsert;
mod write;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edge_sync_host::{Cancel, Component, EdgeSync, Error, ServerSettings, ShardOptions, has_shard};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command, LogFormat, Method};
use crate::output::{Output, SPINNER, exit_code};
use crate::settings::Settings;
use crate::signals::Signals;

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
    let outcome = session.run(arguments.command);
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

/// What every command works with.
struct Session {
    settings: Settings,
    /// The command's name.
    command: &'static str,
    output: Output,
    cancel: Cancel,
}

impl Session {
    fn new(arguments: &Arguments, output: Output) -> Result<Session, Error> {
        Ok(Session {
            settings: Settings::load(&arguments.settings, !arguments.command.has_collections())?,
            command: arguments.command.name(),
            output,
            cancel: Cancel::new(),
        })
    }

    fn run(&self, command: Command) -> Result<u8, Error> {
        match command {
            Command::Create(arguments) => self.create(&arguments),
            Command::Upsert(arguments) => self.upsert(&arguments),
            Command::Delete(arguments) => self.delete(&arguments),
            Command::Retrieve(arguments) => self.retrieve(&arguments),
            Command::Search(body) => self.search(&body),
            Command::Scroll(arguments) => self.scroll(&arguments),
            Command::Count(arguments) => self.count(&arguments),
            Command::Facet(body) => self.request(Method::Post, "/facet", &body),
            Command::Groups(body) => self.request(Method::Post, "/points/query/groups", &body),
            Command::Matrix(arguments) => self.request(
                Method::Post,
                &format!("/points/search/matrix/{}", arguments.form.path()),
                &arguments.body,
            ),
            Command::Batch(body) => self.batch(&body),
            Command::Payload(arguments) => self.payload(&arguments),
            Command::Vectors(command) => self.vectors(&command),
            Command::Request(arguments) => {
                self.request(arguments.method, &arguments.path, &arguments.body)
            }
            Command::Index(command) => self.index(&command),
            Command::Prepare => self.prepare(),
            Command::Optimize(arguments) => self.optimize(&arguments),
            Command::Flush => self.flush(),
            Command::Info => self.info(),
            Command::Sync(arguments) => self.sync(&arguments),
            Command::Serve(arguments) => self.serve(&arguments),
            Command::Restore(arguments) => self.restore(&arguments),
            Command::Status => self.status(),
            Command::Queue(command) => self.queue(&command),
            Command::Rejected(command) => self.rejected(&command),
            // They need no settings: `main` has answered them.
            Command::Completions { .. } | Command::Man { .. } => Ok(0),
        }
    }

    /// The component; whoever waits while it is compiled is told.
    fn component(&self) -> Result<Component, Error> {
        let output = self.output;
        self.settings
            .component(move || output.note("preparing the component, once; this takes a while"))
    }

    /// Compiles the component, if that was not done yet.
    fn prepare(&self) -> Result<u8, Error> {
        let compiled = Arc::new(AtomicBool::new(false));
        let bar = self.output.bar(SPINNER);
        bar.set_message("compiling the component for this machine");
        let component = self.settings.component({
            let compiled = Arc::clone(&compiled);
            move || compiled.store(true, Ordering::Relaxed)
        });
        bar.finish_and_clear();
        component?;
        let compiled = compiled.load(Ordering::Relaxed);
        let text = match compiled {
            true => "compiled the component for this machine",
            false => "the component was compiled for this machine before",
        };
        self.output.say(&json!({ "compiled": compiled }), text)?;
        Ok(0)
    }

    fn shard_options(&self) -> ShardOptions {
        self.settings
            .shard_options()
            .process_name(Some(format!("edge-sync {}", self.command)))
    }

    /// The shard, without a server.
    fn open(&self) -> Result<EdgeSync, Error> {
        self.open_with(self.shard_options())
    }

    fn open_with(&self, options: ShardOptions) -> Result<EdgeSync, Error> {
        let edge = EdgeSync::builder(self.component()?, self.settings.data_dir())
            .options(options)
            .open()?;
        self.notes(&edge);
        Ok(edge)
    }

    /// What a person should know about the server before anything is sent there.
    fn server(&self, server: ServerSettings) -> ServerSettings {
        if server.exposes_key() {
            self.output.note(&format!(
                "WARNING: the API key goes to {} in clear, and everybody on the way can read it; \
                 https would hide it",
                server.url
            ));
        }
        server
    }

    fn notes(&self, edge: &EdgeSync) {
        for note in edge.shard().notes() {
            self.output.note(&note);
        }
    }

    /// Flushes and closes, and passes on what happened meanwhile.
    fn close(&self, edge: EdgeSync) -> Result<(), Error> {
        let closed = edge.shard().close();
        self.notes(&edge);
        closed
    }

    /// Ends a command with its own outcome, which it has printed: what was done is done, however the
    /// shard closes.
    fn close_after(&self, outcome: Result<u8, Error>, edge: EdgeSync) -> Result<u8, Error> {
        let closed = self.close(edge);
        let code = outcome?;
        closed?;
        Ok(code)
    }

    /// From here on, an interrupt asks the work under way to stop at the next good moment; a
    /// second one ends the process at once.
    fn stop_on_interrupt(&self) -> Result<(), Error> {
        let cancel = self.cancel.clone();
        self.on_interrupts(vec![
            Box::new(move || cancel.cancel()),
            Box::new(|| std::process::exit(i32::from(output::exit::CANCELLED))),
        ])
    }

    /// Does one thing at each interrupt.
    fn on_interrupts(&self, steps: Vec<Box<dyn Fn() + Send>>) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| Error::Internal(format!("waiting for signals: {error}")))?;
        let mut signals = {
            let _within = runtime.enter();
            Signals::listen()?
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                for step in steps {
                    signals.next().await;
                    step();
                }
            });
        });
        Ok(())
    }
}
