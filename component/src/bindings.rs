//! The Rust side of `wit/`, generated. Everything else names WIT types through this module.

#![allow(missing_docs, unsafe_code, clippy::all)]

wit_bindgen::generate!({
    path: "../wit",
    world: "edge-sync",
    generate_all,
    pub_export_macro: true,
    additional_derives: [Clone],
});

pub use exports::edge_sync::shard::{courier, peek, queue, reader, restore, shard, sync, types};
