//! The tests of the engine's vector instructions (ports/wasm-kernels), compiled to WebAssembly.

use std::path::PathBuf;

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::bindings::sync::Command;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::support::component_file;

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// `cargo xtask test` puts it beside the component.
fn tests_of_kernels() -> PathBuf {
    component_file().with_file_name("wasm_kernels_tests.wasm")
}

#[test]
fn kernels_compute_what_the_scalar_code_does() {
    // No relaxed instructions, whose results differ from processor to processor.
    let mut config = Config::new();
    config.wasm_relaxed_simd(false);
    let engine = Engine::new(&config).expect("an engine");
    let component = Component::from_file(&engine, tests_of_kernels()).expect("the tests");
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).expect("wasi");
    let output = MemoryOutputPipe::new(1 << 20);
    let errors = MemoryOutputPipe::new(1 << 20);
    let wasi = WasiCtx::builder()
        .arg("wasm_kernels_tests")
        .arg("--nocapture")
        .stdout(output.clone())
        .stderr(errors.clone())
        .build();
    let table = ResourceTable::new();
    let mut store = Store::new(&engine, State { wasi, table });
    let command = Command::instantiate(&mut store, &component, &linker).expect("plain WASI");
    let ended = command.wasi_cli_run().call_run(&mut store);
    let text = |pipe: MemoryOutputPipe| String::from_utf8_lossy(&pipe.contents()).into_owned();
    let (output, errors) = (text(output), text(errors));
    assert!(matches!(ended, Ok(Ok(()))), "{output}{errors}{ended:?}");
    // A test only of vectors is among them: without these the code is the scalar one.
    assert!(output.contains("order_of_sums::"), "{output}");
    assert!(output.contains("test result: ok."), "{output}");
}
