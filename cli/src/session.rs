//! What every command works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edge_sync_host::{Cancel, Component, EdgeSync, Error, ServerSettings, ShardOptions};
use serde_json::json;

use crate::arguments::Arguments;
use crate::output::{self, Output, SPINNER};
use crate::settings::Settings;
use crate::signals::Signals;

/// Settings, output, and the way to stop.
pub struct Session {
    pub settings: Settings,
    /// The command's name.
    pub command: &'static str,
    pub output: Output,
    pub cancel: Cancel,
}

impl Session {
    pub fn new(arguments: &Arguments, output: Output) -> Result<Session, Error> {
        Ok(Session {
            settings: Settings::load(&arguments.settings, !arguments.command.has_collections())?,
            command: arguments.command.name(),
            output,
            cancel: Cancel::new(),
        })
    }

    /// The component; whoever waits while it is compiled is told.
    pub fn component(&self) -> Result<Component, Error> {
        let output = self.output;
        self.settings
            .component(move || output.note("preparing the component, once; this takes a while"))
    }

    /// Compiles the component, if that was not done yet.
    pub fn prepare(&self) -> Result<u8, Error> {
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

    pub fn shard_options(&self) -> ShardOptions {
        self.settings
            .shard_options()
            .process_name(Some(format!("edge-sync {}", self.command)))
    }

    /// The shard, without a server.
    pub fn open(&self) -> Result<EdgeSync, Error> {
        self.open_with(self.shard_options())
    }

    pub fn open_with(&self, options: ShardOptions) -> Result<EdgeSync, Error> {
        let edge = EdgeSync::builder(self.component()?, self.settings.data_dir())
            .options(options)
            .open()?;
        self.notes(&edge);
        Ok(edge)
    }

    /// What a person should know about the server before anything is sent there.
    pub fn server(&self, server: ServerSettings) -> ServerSettings {
        if server.exposes_key() {
            self.output.note(&format!(
                "WARNING: the API key goes to {} in clear, and everybody on the way can read it; \
                 https would hide it",
                server.url
            ));
        }
        server
    }

    pub fn notes(&self, edge: &EdgeSync) {
        for note in edge.shard().notes() {
            self.output.note(&note);
        }
    }

    /// Flushes and closes, and passes on what happened meanwhile.
    pub fn close(&self, edge: EdgeSync) -> Result<(), Error> {
        let closed = edge.shard().close();
        self.notes(&edge);
        closed
    }

    /// Ends a command with its own outcome, which it has printed: what was done is done, however the
    /// shard closes.
    pub fn close_after(&self, outcome: Result<u8, Error>, edge: EdgeSync) -> Result<u8, Error> {
        let closed = self.close(edge);
        let code = outcome?;
        closed?;
        Ok(code)
    }

    /// From here on, an interrupt asks the work under way to stop at the next good moment; a
    /// second one ends the process at once.
    pub fn stop_on_interrupt(&self) -> Result<(), Error> {
        let cancel = self.cancel.clone();
        self.on_interrupts(vec![
            Box::new(move || cancel.cancel()),
            Box::new(|| std::process::exit(i32::from(output::exit::CANCELLED))),
        ])
    }

    /// Does one thing at each interrupt.
    pub fn on_interrupts(&self, steps: Vec<Box<dyn Fn() + Send>>) -> Result<(), Error> {
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
