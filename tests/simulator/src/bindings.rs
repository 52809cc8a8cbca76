//! Bindings generated from `wit/`.

#![allow(
    missing_docs,
    clippy::all,
    reason = "generated; what WIT documents is documented"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "edge-sync",
    additional_derives: [PartialEq],
});
