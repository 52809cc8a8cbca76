//! The component, compiled, and the engine that runs it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config, Engine, EngineWeak};

use crate::bindings::EdgeSyncPre;
use crate::error::{Error, Result};
use crate::instance::Guest;

/// Stack for guest code. Deeply nested JSON recurses, and Wasmtime's default of 512 KiB is little for
/// that. The guest's own stack in linear memory ends at 8 MiB; this one is usually met first.
pub(crate) const GUEST_STACK_BYTES: usize = 2 << 20;

/// How often a running call looks whether its time is up.
const TICK: Duration = Duration::from_millis(20);

/// Where [`Component::find`] looks beside the running executable.
const FILE_NAME: &str = "edge_sync.wasm";

/// How to compile.
#[derive(Clone, Debug, Default)]
pub struct ComponentOptions {
    /// Folder for compiled code. Compiling takes many seconds, loading from here a fraction of
    /// one. Wasmtime's own cache is used: entries are keyed by the component's bytes, the
    /// compiler's version and its settings. The code in it is trusted as the executable is, so it
    /// must be writable by the user alone. None: compile every time.
    pub cache: Option<PathBuf>,
}

/// The compiled component. Clones share the code.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pre: EdgeSyncPre<Guest>,
    clock: Arc<Clock>,
}

impl Component {
    /// Compiles the component at `path`, with the default cache folder.
    pub fn load(path: impl AsRef<Path>) -> Result<Component> {
        let cache = default_cache();
        Component::load_with(path, &ComponentOptions { cache })
    }

    /// Compiles the component at `path`.
    pub fn load_with(path: impl AsRef<Path>, options: &ComponentOptions) -> Result<Component> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::ComponentMissing {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Component::from_bytes(&bytes, options)
    }

    /// Compiles the component from its bytes.
    pub fn from_bytes(bytes: &[u8], options: &ComponentOptions) -> Result<Component> {
        let engine = engine(options)?;
        let started = std::time::Instant::now();
        let component = wasmtime::component::Component::from_binary(&engine, bytes)
            .map_err(|error| Error::BadComponent(format!("{error:#}")))?;
        tracing::debug!(
            milliseconds = started.elapsed().as_millis() as u64,
            "component compiled or loaded from the cache"
        );
        let linker = linker(&engine)?;
        let pre = linker
            .instantiate_pre(&component)
            .and_then(EdgeSyncPre::new)
            .map_err(|error| Error::BadComponent(format!("{error:#}")))?;
        let clock = Clock::start(engine.weak())?;
        Ok(Component {
            inner: Arc::new(Inner { engine, pre, clock }),
        })
    }

    /// The component file: `explicit` if given, else `$EDGE_SYNC_COMPONENT`, else `edge_sync.wasm`
    /// beside the running executable.
    pub fn find(explicit: Option<&Path>) -> Result<PathBuf> {
        if let Some(path) = explicit {
            return Ok(path.to_owned());
        }
        if let Some(path) = std::env::var_os("EDGE_SYNC_COMPONENT").filter(|path| !path.is_empty())
        {
            return Ok(path.into());
        }
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join(FILE_NAME)))
            .unwrap_or_else(|| FILE_NAME.into());
        if beside.is_file() {
            return Ok(beside);
        }
        Err(Error::ComponentMissing {
            path: beside,
            message: "no such file; name it with EDGE_SYNC_COMPONENT or --component".to_owned(),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn pre(&self) -> &EdgeSyncPre<Guest> {
        &self.inner.pre
    }

    /// Keeps time for one call: returns how many ticks `limit` is, and ticks until dropped.
    pub(crate) fn timed(&self, limit: Duration) -> (u64, Ticking) {
        let ticks = limit.as_millis().div_ceil(TICK.as_millis());
        // One more, since the first tick may come at once.
        let ticks = u64::try_from(ticks)
            .unwrap_or(u64::MAX / 2)
            .saturating_add(1);
        (ticks.min(u64::MAX / 2), self.inner.clock.begin())
    }
}

/// `$EDGE_SYNC_CACHE/component-cache`, or `edge-sync/component-cache` in the user's cache folder.
fn default_cache() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let root = variable("EDGE_SYNC_CACHE").or_else(|| {
        variable("XDG_CACHE_HOME")
            .or_else(|| Some(variable("HOME")?.join(".cache")))
            .map(|cache| cache.join("edge-sync"))
    })?;
    Some(root.join("component-cache"))
}

fn engine(options: &ComponentOptions) -> Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES);
    config.async_stack_size(2 * GUEST_STACK_BYTES);
    if let Some(directory) = &options.cache {
        config.cache(open_cache(directory));
    }
    Engine::new(&config).map_err(|error| Error::BadComponent(format!("{error:#}")))
}

/// The cache is a convenience: without it the component is compiled anew.
fn open_cache(directory: &Path) -> Option<Cache> {
    let directory = std::path::absolute(directory).ok()?;
    let mut config = CacheConfig::new();
    config.with_directory(&directory);
    match Cache::new(config) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!(directory = %directory.display(), "compiled code is not cached: {error:#}");
            None
        }
    }
}

/// WASI and wasi-http are linked for every instance, since every instance is of the same
/// component; what an instance may do with them is up to its [`Guest`].
fn linker(engine: &Engine) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)
        .and_then(|()| wasmtime_wasi_http::p2::add_only_http_to_linker_sync(&mut linker))
        .map_err(|error| Error::BadComponent(format!("{error:#}")))?;
    Ok(linker)
}

/// Advances the engine's epoch while any call runs, and sleeps otherwise: an idle device is not
/// woken.
struct Clock {
    running: Mutex<usize>,
    changed: Condvar,
}

impl Clock {
    fn start(engine: EngineWeak) -> Result<Arc<Clock>> {
        let clock = Arc::new(Clock {
            running: Mutex::new(0),
            changed: Condvar::new(),
        });
        let watched = Arc::downgrade(&clock);
        std::thread::Builder::new()
            .name("edge-sync clock".into())
            .spawn(move || {
                while let Some(clock) = watched.upgrade() {
                    if !clock.wait() {
                        continue;
                    }
                    drop(clock);
                    std::thread::sleep(TICK);
                    let Some(engine) = engine.upgrade() else {
                        break;
                    };
                    engine.increment_epoch();
                }
            })
            .map_err(Error::io("start a thread for", "the clock"))?;
        Ok(clock)
    }

    /// Waits for a call; false now and then, for a look at whether the component is still there.
    fn wait(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, _) = self
            .changed
            .wait_timeout_while(running, Duration::from_secs(60), |running| *running == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *running > 0
    }

    fn begin(self: &Arc<Clock>) -> Ticking {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        self.changed.notify_all();
        Ticking(Arc::clone(self))
    }
}

/// Keeps the clock going.
pub(crate) struct Ticking(Arc<Clock>);

impl Drop for Ticking {
    fn drop(&mut self) {
        let mut running = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_component_is_refused() {
        let options = ComponentOptions::default();
        for bytes in [&b"not wasm"[..], b"\0asm\x0d\0\x01\0"] {
            assert!(matches!(
                Component::from_bytes(bytes, &options),
                Err(Error::BadComponent(_))
            ));
        }
        assert!(matches!(
            Component::load_with("/nowhere/edge_sync.wasm", &options),
            Err(Error::ComponentMissing { .. })
        ));
    }
}
