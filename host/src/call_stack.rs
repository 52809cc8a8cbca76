//! A stack for calls of the component that their callers run on their own threads, whose stacks may be
//! small: a thread of Rust's standard library has 2 MiB.

use std::io;

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", not(windows))))]
use corosensei::{on_stack, stack::DefaultStack};

/// See the module.
pub(crate) struct CallStack(
    #[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", not(windows))))] DefaultStack,
);

impl CallStack {
    /// What Wasmtime grants the guest, and the host's own frames above it.
    pub(crate) const BYTES: usize = crate::component::GUEST_STACK_BYTES + (4 << 20);
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", not(windows))))]
impl CallStack {
    /// A stack, of whose memory only what is used is touched; none on processors for which there is no
    /// way to change to it.
    pub(crate) fn new() -> io::Result<Option<CallStack>> {
        DefaultStack::new(CallStack::BYTES).map(|stack| Some(CallStack(stack)))
    }

    /// Runs `call` on this stack. A panic of it goes on in the caller.
    pub(crate) fn run<R>(&mut self, call: impl FnOnce() -> R) -> R {
        on_stack(&mut self.0, call)
    }
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", not(windows)))))]
impl CallStack {
    pub(crate) fn new() -> io::Result<Option<CallStack>> {
        Ok(None)
    }

    pub(crate) fn run<R>(&mut self, call: impl FnOnce() -> R) -> R {
        call()
    }
}
