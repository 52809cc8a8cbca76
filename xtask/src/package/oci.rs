//! The component as an OCI image layout, in the form that WebAssembly artifacts have in registries: a
//! configuration `application/vnd.wasm.config.v0+json` and one layer `application/wasm`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wasmparser::{Parser, Payload};

use crate::{cache::create_folder, digest};

/// Writes the layout into `folder`, with the component tagged as `version`.
///
/// # Errors
/// Where a file cannot be written, or the bytes are no component.
pub fn write(folder: &Path, component: &[u8], version: &str) -> Result<()> {
    let blobs = folder.join("blobs").join("sha256");
    create_folder(&blobs)?;
    let layer = blob(&blobs, "application/wasm", component)?;
    let (imports, exports) = interfaces(component)?;
    let config = json!({
        // Nothing of when or where it was made, so that the same component has the same digest.
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer["digest"]],
        "component": {
            "exports": exports,
            "imports": imports,
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

/// The names of what a component imports, and of what it exports.
fn interfaces(component: &[u8]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    // Components within it have imports and exports of their own.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.context("reading the component")? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    imports.sort();
    exports.sort();
    Ok((imports, exports))
}

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

    /// One that imports an instance and exports it, with another such within.
    fn component() -> Vec<u8> {
        use wasm_encoder::{
            Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
            ComponentTypeRef, ComponentTypeSection, InstanceType, NestedComponentSection,
        };
        let of = |imported: &str, exported: &str| {
            let mut types = ComponentTypeSection::new();
            types.instance(&InstanceType::new());
            let mut imports = ComponentImportSection::new();
            imports.import(imported, ComponentTypeRef::Instance(0));
            let mut exports = ComponentExportSection::new();
            exports.export(exported, ComponentExportKind::Instance, 0, None);
            let mut component = Component::new();
            component.section(&types);
            component.section(&imports);
            (component, exports)
        };
        let (mut within, exports) = of("a:b/within", "a:b/hidden");
        within.section(&exports);
        let (mut component, exports) = of("wasi:io/poll@0.2.6", "edge-sync:shard/queue@1.2.3");
        component.section(&NestedComponentSection(&within));
        component.section(&exports);
        component.finish()
    }

    #[test]
    fn every_blob_is_what_it_is_called_and_leads_to_the_component() {
        let folder = tempfile::tempdir().expect("a folder");
        let component = component();
        write(folder.path(), &component, "1.2.3").expect("a layout");
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
        assert_eq!(blob(&manifest["layers"][0]), component);
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
        assert_eq!(
            config["component"],
            json!({
                "imports": ["wasi:io/poll@0.2.6"],
                "exports": ["edge-sync:shard/queue@1.2.3"],
            })
        );
        assert_eq!(json(&read("oci-layout"))["imageLayoutVersion"], "1.0.0");
    }

    #[test]
    fn what_is_no_component_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write(folder.path(), b"component", "1.2.3").is_err());
    }
}
