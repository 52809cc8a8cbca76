//! The component as an OCI image layout, in the form that WebAssembly artifacts have in registries: a
//! configuration `application/vnd.wasm.config.v0+json` and one layer `application/wasm`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{cache::create_folder, digest};

/// Writes the layout into `folder`, with the component tagged as `version`.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(folder: &Path, component: &[u8], version: &str) -> Result<()> {
    let blobs = folder.join("blobs").join("sha256");
    create_folder(&blobs)?;
    let layer = blob(&blobs, "application/wasm", component)?;
    let config = json!({
        // Nothing of when or where it was made, so that the same component has the same digest.
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer["digest"]],
        "component": {
            "exports": EXPORTS.map(|name| format!("edge-sync:shard/{name}@{version}")),
            "imports": [],
        },
    });
    let config = blob(
        &blobs,
        "application/vnd.wasm.config.v0+json",
        &text(&config),
    )?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": "edge-sync",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = blob(&blobs, kind, &text(&manifest))?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": version });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    put(&folder.join("index.json"), &text(&index))?;
    put(
        &folder.join("oci-layout"),
        &text(&json!({ "imageLayoutVersion": "1.0.0" })),
    )
}

/// The interfaces of `wit/world.wit`.
const EXPORTS: [&str; 7] = [
    "types", "shard", "queue", "peek", "courier", "restore", "sync",
];

/// Stores bytes by their digest, and describes them.
fn blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest::sha256(bytes);
    put(&blobs.join(&digest), bytes)?;
    Ok(json!({
        "mediaType": media_type,
        "digest": format!("sha256:{digest}"),
        "size": bytes.len(),
    }))
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    #[test]
    fn every_blob_is_what_it_is_called_and_leads_to_the_component() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), b"component", "1.2.3").expect("a layout");
        let read = |path: &str| std::fs::read(folder.path().join(path)).expect("a file");
        let blob = |described: &Value| {
            let digest = described["digest"].as_str().expect("a digest");
            let bytes = read(&digest.replace("sha256:", "blobs/sha256/"));
            assert_eq!(digest, format!("sha256:{}", digest::sha256(&bytes)));
            assert_eq!(described["size"], bytes.len());
            bytes
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let index = json(&read("index.json"));
        let manifest = json(&blob(&index["manifests"][0]));
        assert_eq!(blob(&manifest["layers"][0]), b"component");
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
        assert_eq!(json(&read("oci-layout"))["imageLayoutVersion"], "1.0.0");
    }

    #[test]
    fn the_exports_are_those_of_the_world() {
        let repository = Repository::of_this_program().expect("the clone");
        let world = std::fs::read_to_string(repository.root().join("wit/world.wit")).expect("it");
        let exports: Vec<&str> = world
            .lines()
            .filter_map(|line| line.trim().strip_prefix("export ")?.strip_suffix(';'))
            .filter(|name| !name.contains(':'))
            .collect();
        assert_eq!(exports, EXPORTS);
    }
}
