//! An instance of the component in the simulated world.

use std::path::Path;

use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Cache, CacheConfig, Config, Engine, Store};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::sync::filesystem::types as filesystem;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, async_trait};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::bindings::{EdgeSync, EdgeSyncPre};
use crate::http::Wire;
use crate::world::{Shared, Stopped};

/// How much of what the component says is kept.
const STDERR_BYTES: usize = 64 << 10;

/// The store's data.
pub struct Guest {
    pub(super) world: Shared,
    pub(super) table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    wire: Wire,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.wire,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl wall_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = self.world.lock().now_ns();
        Ok(wall_clock::Datetime {
            seconds: now / 1_000_000_000,
            nanoseconds: (now % 1_000_000_000) as u32,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1,
        })
    }
}

/// Ready at once: the wait is over as soon as it is asked for.
struct Waited;

#[async_trait]
impl Pollable for Waited {
    async fn ready(&mut self) {}
}

impl monotonic_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.world.lock().now_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.world.lock().now_ns();
        self.subscribe_duration(when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.world.lock().pass(nanoseconds);
        let waited = self.table.push(Waited)?;
        subscribe(&mut self.table, waited)
    }
}

impl random::Host for Guest {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let mut world = self.world.lock();
        Ok((0..len).map(|_| world.random_u64() as u8).collect())
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.world.lock().random_u64())
    }
}

impl insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        random::Host::get_random_bytes(self, len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        random::Host::get_random_u64(self)
    }
}

impl insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let mut world = self.world.lock();
        Ok((world.random_u64(), world.random_u64()))
    }
}

/// The component, compiled and linked with the simulator.
#[derive(Clone)]
pub struct Program {
    pre: EdgeSyncPre<Guest>,
}

/// An engine whose compiled code is cached between runs where that is possible.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.max_wasm_stack(2 << 20);
    config.async_stack_size(4 << 20);
    config.cache(Cache::new(CacheConfig::new()).ok());
    Engine::new(&config)
}

/// A linker whose disk, clocks, randomness and network are the simulator's.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_sync(&mut linker)?;
    linker.allow_shadowing(true);
    let own = &mut linker;
    filesystem::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    preopens::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    wall_clock::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    monotonic_clock::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    random::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    insecure::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    insecure_seed::add_to_linker::<Guest, HasSelf<Guest>>(own, |guest| guest)?;
    Ok(linker)
}

/// A store in `world`, and what the guest writes to its standard error.
pub fn store(engine: &Engine, world: &Shared) -> (Store<Guest>, MemoryOutputPipe) {
    let stderr = MemoryOutputPipe::new(STDERR_BYTES);
    let guest = Guest {
        world: world.clone(),
        table: ResourceTable::new(),
        wasi: WasiCtx::builder()
            .allow_blocking_current_thread(true)
            .stdout(stderr.clone())
            .stderr(stderr.clone())
            .build(),
        http: WasiHttpCtx::new(),
        wire: Wire::new(world.clone()),
    };
    (Store::new(engine, guest), stderr)
}

impl Program {
    /// Compiles the component at `path`.
    pub fn load(path: &Path) -> wasmtime::Result<Program> {
        let engine = engine()?;
        let component = Component::from_file(&engine, path)?;
        let pre = EdgeSyncPre::new(linker(&engine)?.instantiate_pre(&component)?)?;
        Ok(Program { pre })
    }

    /// A fresh instance in `world`.
    pub fn start(&self, world: &Shared) -> wasmtime::Result<Instance> {
        let (mut store, stderr) = store(self.pre.engine(), world);
        let bindings = self.pre.instantiate(&mut store)?;
        Ok(Instance {
            store,
            bindings,
            stderr,
        })
    }
}

/// A running instance. Dropping it is stopping the process.
pub struct Instance {
    store: Store<Guest>,
    bindings: EdgeSync,
    stderr: MemoryOutputPipe,
}

/// How a call ends that does not succeed.
#[derive(Debug)]
pub enum Ended {
    /// The component answered an error; the instance goes on.
    Error(GuestError),
    /// The simulator stopped the instance.
    Stopped,
    /// The component trapped: never right.
    Trapped(String),
}

impl Instance {
    /// Calls the component.
    pub fn call<R>(
        &mut self,
        function: impl FnOnce(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R, Ended> {
        let outcome = function(&self.bindings, &mut self.store);
        // An exchange that stopped the instance could not trap by itself.
        if self.store.data().world.lock().is_stopped() {
            return Err(Ended::Stopped);
        }
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Ended::Error(error)),
            Err(trap) if trap.root_cause().is::<Stopped>() => Err(Ended::Stopped),
            Err(trap) => Err(Ended::Trapped(format!(
                "{trap:?}; it said: {}",
                self.said()
            ))),
        }
    }

    /// What the component wrote to its standard error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.contents()).into_owned()
    }
}
