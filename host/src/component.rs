//! The component, compiled, and the engine that runs it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak};

use crate::background;
use crate::bindings::EdgeSyncPre;
use crate::compiled::CompiledCode;
use crate::component_file::ComponentFile;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::names::Names;

/// Stack for guest code. Deeply nested JSON recurses, and Wasmtime's default of 512 KiB is little for
/// that. The guest's own stack in linear memory ends at 8 MiB; this one is usually met first.
pub(crate) const GUEST_STACK_BYTES: usize = 2 << 20;

/// How often a running call looks whether its time is up.
const TICK: Duration = Duration::from_millis(20);

/// Where [`Component::find`] looks beside the running executable.
const FILE_NAME: &str = "edge_sync.wasm";

/// How to compile.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ComponentOptions {
    /// Folder for compiled code. Compiling takes many seconds; from here the code is mapped, in
    /// milliseconds. Files are keyed by the component's bytes, the compiler's version, its settings
    /// and the processor. The code is trusted as the executable is, so that nothing is taken from a
    /// folder that others may write to. None: compile every time.
    pub cache: Option<PathBuf>,
    /// File with the names of the component's functions, by which the log explains a trap; read then.
    /// None: the file `edge_sync.names` beside the component, if that comes from a file.
    pub names: Option<PathBuf>,
    /// Called before the component is compiled, and not when its code is in the cache: many
    /// seconds pass then, and somebody may be waiting.
    pub on_compile: Option<OnCompile>,
}

/// What is called before the component is compiled.
pub type OnCompile = Arc<dyn Fn() + Send + Sync>;

impl ComponentOptions {
    /// The user's cache folder: `$EDGE_SYNC_CACHE/component-cache`, or
    /// `edge-sync/component-cache` in the user's folder for caches.
    pub fn cached() -> ComponentOptions {
        ComponentOptions {
            cache: default_cache(),
            ..ComponentOptions::default()
        }
    }

    /// Where the compiled code of the component with this SHA-256 is kept.
    fn compiled(&self, digest: &str, engine: &Engine) -> Option<CompiledCode> {
        let cache = self.cache.as_deref()?;
        Some(CompiledCode::of(digest, engine, &cache.join(CODE)))
    }

    /// Sets [`ComponentOptions::cache`].
    #[must_use]
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> ComponentOptions {
        self.cache = Some(folder.into());
        self
    }

    /// Sets [`ComponentOptions::on_compile`].
    #[must_use]
    pub fn on_compile(mut self, notify: impl Fn() + Send + Sync + 'static) -> ComponentOptions {
        self.on_compile = Some(Arc::new(notify));
        self
    }
}

impl fmt::Debug for ComponentOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentOptions")
            .field("cache", &self.cache)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
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
    names: Names,
}

impl Component {
    /// Compiles the component at `path`, with the default cache folder.
    pub fn load(path: impl AsRef<Path>) -> Result<Component> {
        Component::load_with(path, &ComponentOptions::cached())
    }

    /// Compiles the component at `path`.
    ///
    /// Errors: [`Error::ComponentMissing`] if the file cannot be read; [`Error::BadComponent`] names
    /// the file if it holds something else.
    pub fn load_with(path: impl AsRef<Path>, options: &ComponentOptions) -> Result<Component> {
        let path = path.as_ref();
        let missing = |message: String| Error::ComponentMissing {
            path: path.to_owned(),
            message,
        };
        if path.is_dir() {
            let message = format!("that is a folder; the component is a file, {FILE_NAME}");
            return Err(missing(message));
        }
        let mut options = options.clone();
        options
            .names
            .get_or_insert_with(|| path.with_extension("names"));
        let cache = options.cache.as_deref();
        let file = cache.and_then(|cache| ComponentFile::of(path, cache).ok());
        let named = |error| match error {
            Error::BadComponent(why) => Error::BadComponent(format!("{}: {why}", path.display())),
            other => other,
        };
        let known = file.as_ref().and_then(ComponentFile::digest);
        if let Some(digest) = known
            && let Some(component) = Component::mapped(&digest, &options).map_err(named)?
        {
            return Ok(component);
        }
        let state = file.as_ref().and_then(|file| file.state().ok());
        let bytes = std::fs::read(path).map_err(|error| missing(error.to_string()))?;
        let digest = sha256(&bytes);
        let component = Component::with_digest(&bytes, &digest, &options).map_err(named)?;
        // A convenience: without it the next process reads the file as well.
        if let (Some(file), Some(state)) = (file, state)
            && let Err(error) = file.remember(state, &digest)
        {
            tracing::debug!("the component's digest is not kept: {error}");
        }
        Ok(component)
    }

    /// Compiles the component from its bytes, for programs that carry it in themselves:
    /// `Component::from_bytes(include_bytes!("edge_sync.wasm"), &ComponentOptions::cached())`.
    ///
    /// Errors: [`Error::BadComponent`].
    pub fn from_bytes(bytes: &[u8], options: &ComponentOptions) -> Result<Component> {
        Component::with_digest(bytes, &sha256(bytes), options)
    }

    fn with_digest(bytes: &[u8], digest: &str, options: &ComponentOptions) -> Result<Component> {
        if let Some(what) = no_component(bytes) {
            return Err(Error::BadComponent(what.to_owned()));
        }
        if let Some(component) = Component::mapped(digest, options)? {
            return Ok(component);
        }
        if let Some(notify) = &options.on_compile {
            notify();
        }
        let engine = engine()?;
        let started = Instant::now();
        let component = wasmtime::component::Component::from_binary(&engine, bytes)
            .map_err(|error| Error::BadComponent(format!("{error:#}")))?;
        tracing::debug!(
            milliseconds = started.elapsed().as_millis() as u64,
            "component compiled"
        );
        let code = options.compiled(digest, &engine);
        // A convenience: without it the next process compiles as well.
        if let Some(Err(error)) = code.map(|code| code.store(&component)) {
            tracing::warn!("compiled code is not kept: {error}");
        }
        Component::linked(engine, &component, digest, options)
    }

    /// The component with this SHA-256 from the cache, if its compiled code is there.
    fn mapped(digest: &str, options: &ComponentOptions) -> Result<Option<Component>> {
        let engine = engine()?;
        let code = options.compiled(digest, &engine);
        match code.and_then(|code| code.load(&engine)) {
            Some(component) => Component::linked(engine, &component, digest, options).map(Some),
            None => Ok(None),
        }
    }

    fn linked(
        engine: Engine,
        component: &wasmtime::component::Component,
        digest: &str,
        options: &ComponentOptions,
    ) -> Result<Component> {
        let linker = linker(&engine)?;
        let pre = linker
            .instantiate_pre(component)
            .and_then(EdgeSyncPre::new)
            .map_err(|error| Error::BadComponent(format!("{error:#}")))?;
        let clock = Clock::start(engine.weak())?;
        let names = Names::new(options.names.clone(), digest.to_owned());
        Ok(Component {
            inner: Arc::new(Inner {
                engine,
                pre,
                clock,
                names,
            }),
        })
    }

    /// [`Component::load`] for async callers: compiling takes many seconds.
    pub async fn load_async(path: impl AsRef<Path>) -> Result<Component> {
        let path = path.as_ref().to_owned();
        background::run("compiling", move |_| Component::load(path)).await
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

    /// Names of the component's functions.
    pub(crate) fn names(&self) -> &Names {
        &self.inner.names
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

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// In the cache folder: compiled code.
const CODE: &str = "code";

/// What the bytes are, if they are no component.
fn no_component(bytes: &[u8]) -> Option<&'static str> {
    // Magic number, then the version: 1 of a module, 13 of a component, in the second half of which
    // stands the layer.
    match bytes {
        [] => Some("the file is empty"),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Some("this is a WebAssembly module, not a component")
        }
        [0, b'a', b's', b'm', ..] => None,
        _ => Some("this is no WebAssembly component: it does not begin as one"),
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

fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES);
    config.async_stack_size(2 * GUEST_STACK_BYTES);
    Engine::new(&config).map_err(|error| Error::BadComponent(format!("{error:#}")))
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
        let folder = tempfile::tempdir().unwrap();
        let refused = Component::load_with(folder.path(), &options).err().unwrap();
        assert!(refused.to_string().contains("is a folder"), "{refused}");
        let file = folder.path().join("README.md");
        for (bytes, words) in [
            (&b""[..], "is empty"),
            (b"# edge-sync", "no WebAssembly component"),
            (b"\0asm\x01\0\0\0", "module, not a component"),
        ] {
            std::fs::write(&file, bytes).unwrap();
            let refused = Component::load_with(&file, &options).err().unwrap();
            let text = refused.to_string();
            assert!(text.contains("README.md") && text.contains(words), "{text}");
        }
    }

    #[test]
    fn whoever_waits_is_told_once_that_the_component_is_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let told = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&told);
        let options = ComponentOptions::default()
            .cache(folder.path())
            .on_compile(move || *counter.lock().unwrap() += 1);
        // Compiled and marked; that it lacks the interface shows later.
        let empty = b"\0asm\x0d\0\x01\0";
        for _ in 0..2 {
            assert!(Component::from_bytes(empty, &options).is_err());
            assert_eq!(*told.lock().unwrap(), 1);
        }
    }
}
