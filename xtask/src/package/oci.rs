//! The component as an OCI image layout, in the form that WebAssembly artifacts have in registries: a
//! configuration `application/vnd.wasm.config.v0+json` and one layer `application/wasm`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wasmparser::{Parser, Payload};

use crate::{digest, files::create_folder};

/// What registries and hosts know the parts by; `wkg` takes no others.
const LAYER: &str = "application/wasm";
const CONFIGURATION: &str = "application/vnd.wasm.config.v0+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Checks a layout from its index on: every part is what it is called, of the kind that is wanted there,
/// and the layer is the component. Nothing else lies there.
///
/// # Errors
/// Says what does not hold.
pub fn check(folder: &Path, component: &[u8]) -> Result<()> {
    let blobs = folder.join("blobs").join("sha256");
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).context("not JSON");
    let mut seen = 0;
    let mut blob = |described: &Value, kind: &str| {
        seen += 1;
        let digest = described["digest"].as_str().context("no digest")?;
        let sum = digest.strip_prefix("sha256:").context("no SHA-256")?;
        let bytes = read(&blobs.join(sum))?;
        ensure!(digest::sha256(&bytes) == sum, "{digest} is other bytes");
        ensure!(
            described["size"] == bytes.len(),
            "{digest} is of another size"
        );
        let is = &described["mediaType"];
        ensure!(is == kind, "{digest} is {is}, which should be {kind}");
        Ok(bytes)
    };
    let index = json(&read(&folder.join("index.json"))?)?;
    ensure!(index["mediaType"] == INDEX, "index.json is no index");
    let manifest = json(&blob(&index["manifests"][0], MANIFEST)?)?;
    ensure!(manifest["mediaType"] == MANIFEST, "no manifest");
    let config = json(&blob(&manifest["config"], CONFIGURATION)?)?;
    let layer = &manifest["layers"][0];
    ensure!(
        blob(layer, LAYER)? == component,
        "the layer is not the component"
    );
    ensure!(
        config["layerDigests"] == json!([layer["digest"]]),
        "the configuration is of another layer"
    );
    ensure!(
        config["architecture"] == "wasm" && config["os"] == "wasip2",
        "the configuration is not that of a component"
    );
    let (imports, exports) = interfaces(component)?;
    ensure!(
        config["component"] == json!({ "imports": imports, "exports": exports }),
        "the configuration names other imports or exports"
    );
    let version = json(&read(&folder.join("oci-layout"))?)?;
    ensure!(version["imageLayoutVersion"] == "1.0.0", "no layout");
    let there = blobs.read_dir().context("the folder of the parts")?.count();
    ensure!(there == seen, "{there} parts, of which {seen} belong to it");
    Ok(())
}

/// Writes the layout into `folder`, with the component tagged as `version`.
///
/// # Errors
/// Where a file cannot be written, or the bytes are no component.
pub fn write(folder: &Path, component: &[u8], version: &str) -> Result<()> {
    let blobs = folder.join("blobs").join("sha256");
    create_folder(&blobs)?;
    let layer = blob(&blobs, LAYER, component)?;
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
    let config = blob(&blobs, CONFIGURATION, &text(&config))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": "edge-sync",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    });
    let mut manifest = blob(&blobs, MANIFEST, &text(&manifest))?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": version });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
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
        check(folder.path(), &component).expect("it holds");
        let index = std::fs::read(folder.path().join("index.json")).expect("a file");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            interfaces(&component).expect("a component"),
            (
                vec!["wasi:io/poll@0.2.6".to_owned()],
                vec!["edge-sync:shard/queue@1.2.3".to_owned()]
            )
        );
    }

    #[test]
    fn what_does_not_hold_of_a_layout_is_noticed() {
        let component = component();
        let blobs = |folder: &Path| folder.join("blobs/sha256");
        type Break<'a> = (&'a str, &'a dyn Fn(&Path));
        let broken: [Break<'_>; 4] = [
            ("is other bytes", &|folder| {
                let layer = blobs(folder).join(digest::sha256(&component));
                std::fs::write(layer, "other").expect("written");
            }),
            ("of which", &|folder| {
                std::fs::write(blobs(folder).join("more"), "").expect("written");
            }),
            ("is no index", &|folder| {
                std::fs::write(folder.join("index.json"), "{}").expect("written");
            }),
            ("oci-layout", &|folder| {
                std::fs::remove_file(folder.join("oci-layout")).expect("gone");
            }),
        ];
        for (words, breaks) in broken {
            let folder = tempfile::tempdir().expect("a folder");
            write(folder.path(), &component, "1.2.3").expect("a layout");
            breaks(folder.path());
            let error = check(folder.path(), &component).expect_err(words);
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &component, "1.2.3").expect("a layout");
        assert!(check(folder.path(), b"another").is_err());
    }

    #[test]
    fn what_is_no_component_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write(folder.path(), b"component", "1.2.3").is_err());
    }
}
