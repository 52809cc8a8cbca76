//! What the store of an instance holds for the component: WASI's side, and how much memory it has.

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::outbound::Outbound;
use crate::stderr::StderrTail;

/// The store's data.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    pub(crate) outbound: Outbound,
    pub(crate) memory: MemoryLimit,
    pub(crate) stderr: StderrTail,
}

impl Guest {
    pub(crate) fn new(
        wasi: WasiCtx,
        stderr: StderrTail,
        outbound: Outbound,
        memory_bytes: usize,
    ) -> Guest {
        Guest {
            wasi,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            outbound,
            memory: MemoryLimit {
                bytes: memory_bytes,
                granted: 0,
                exceeded: false,
            },
            stderr,
        }
    }
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
            hooks: &mut self.outbound,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// Refuses growth past the limit and remembers that it did, so that the abort which follows in
/// the guest can be told from others.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    pub(crate) bytes: usize,
    /// What was granted.
    pub(crate) granted: usize,
    pub(crate) exceeded: bool,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.bytes {
            self.exceeded = true;
            return Ok(false);
        }
        self.granted = self.granted.max(desired);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The component's tables hold its functions and do not grow with data.
        Ok(desired <= 1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limit_admits_up_to_the_limit_and_remembers_refusals() {
        let mut limit = MemoryLimit {
            bytes: 1 << 20,
            granted: 0,
            exceeded: false,
        };
        assert!(limit.memory_growing(0, 1 << 20, None).unwrap());
        assert!(!limit.exceeded);
        assert!(!limit.memory_growing(0, (1 << 20) + 65536, None).unwrap());
        assert!(limit.exceeded);
        assert_eq!(limit.granted, 1 << 20);
    }
}
