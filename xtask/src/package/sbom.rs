//! What the component is made of, as a CycloneDX document: every crate that is linked into it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, PackageId};
use serde_json::{Value, json};
use spdx::Expression;

use crate::digest;

/// The document for a component, which is the root package of a resolved graph, in which build and test
/// dependencies do not count.
///
/// # Errors
/// Where the graph has no root, or a crate a licence that is no expression.
pub fn document(metadata: &Metadata, component: &[u8], version: &str) -> Result<Value> {
    let root = metadata.root_package().context("a package")?;
    let resolve = metadata.resolve.as_ref().context("a resolved graph")?;
    let linked = |id: &PackageId| -> Vec<PackageId> {
        let node = resolve.nodes.iter().find(|node| node.id == *id);
        node.into_iter()
            .flat_map(|node| &node.deps)
            .filter(|dependency| {
                let kinds = &dependency.dep_kinds;
                kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            })
            .map(|dependency| dependency.pkg.clone())
            .collect()
    };
    let mut seen: BTreeMap<PackageId, Vec<PackageId>> = BTreeMap::new();
    let mut waiting = vec![root.id.clone()];
    while let Some(id) = waiting.pop() {
        if seen.contains_key(&id) {
            continue;
        }
        let dependencies = linked(&id);
        waiting.extend(dependencies.iter().cloned());
        seen.insert(id, dependencies);
    }
    let reference = |id: &PackageId| {
        let package = &metadata[id];
        format!("pkg:cargo/{}@{}", package.name, package.version)
    };
    let sorted = |mut values: Vec<Value>, by: &str| {
        values.sort_by_key(|value| value[by].to_string());
        values
    };
    let others = seen.keys().filter(|id| **id != root.id);
    let components = others.map(|id| {
        let package = &metadata[id];
        let licence = package.license.as_deref().map(strict).transpose()?;
        Ok(json!({
            "type": "library",
            "bom-ref": reference(id),
            "name": package.name.to_string(),
            "version": package.version.to_string(),
            "purl": reference(id),
            "licenses": licence.iter().map(|it| json!({ "expression": it })).collect::<Vec<_>>(),
            // Sources of this repository, or the registry's with its patches.
            "pedigree": { "notes": if package.source.is_some() { "as in the registry" } else { "of this repository" } },
        }))
    });
    let components = components.collect::<Result<Vec<Value>>>()?;
    let dependencies = seen.iter().map(|(id, on)| {
        let mut on: Vec<String> = on.iter().map(reference).collect();
        on.sort();
        on.dedup();
        json!({ "ref": reference(id), "dependsOn": on })
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": reference(&root.id),
                "name": "edge-sync",
                "version": version,
                "hashes": [{ "alg": "SHA-256", "content": digest::sha256(component) }],
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": sorted(components, "bom-ref"),
        "dependencies": sorted(dependencies.collect(), "ref"),
    }))
}

/// A licence as SPDX has it. Older crates write "MIT/Apache-2.0".
fn strict(licence: &str) -> Result<String> {
    let fixed = Expression::canonicalize(licence).with_context(|| licence.to_owned())?;
    let expression = fixed.unwrap_or_else(|| licence.to_owned());
    Expression::parse(&expression).with_context(|| licence.to_owned())?;
    Ok(expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_expressions() {
        for (licence, expression) in [
            ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
            ("Apache-2.0 / MIT", "Apache-2.0 OR MIT"),
            ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
            (
                "(MIT OR Apache-2.0) AND Unicode-3.0",
                "(MIT OR Apache-2.0) AND Unicode-3.0",
            ),
            (
                "Apache-2.0 WITH LLVM-exception",
                "Apache-2.0 WITH LLVM-exception",
            ),
        ] {
            assert_eq!(strict(licence).expect("it is one"), expression);
        }
        assert!(strict("as you like").is_err());
    }

    #[test]
    fn the_document_tells_which_component_it_is_of() {
        let package = |name: &str, licence: &str| {
            json!({
                "name": name,
                "version": "1.0.0",
                "id": name,
                "license": licence,
                "dependencies": [],
                "targets": [],
                "features": {},
                "manifest_path": format!("/{name}/Cargo.toml"),
            })
        };
        let metadata = json!({
            "packages": [package("root", "Apache-2.0"), package("old", "MIT/Apache-2.0")],
            "workspace_members": ["root"],
            "resolve": {
                "root": "root",
                "nodes": [
                    {
                        "id": "root",
                        "deps": [{
                            "name": "old",
                            "pkg": "old",
                            "dep_kinds": [{ "kind": null, "target": null }],
                        }],
                        "dependencies": ["old"],
                        "features": [],
                    },
                    { "id": "old", "deps": [], "dependencies": [], "features": [] },
                ],
            },
            "workspace_root": "/root",
            "target_directory": "/target",
            "version": 1,
        });
        let metadata = serde_json::from_value(metadata).expect("metadata");
        let document = document(&metadata, b"abc", "1.2.3").expect("a document");
        let of = &document["metadata"]["component"];
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of["hashes"], json!([{ "alg": "SHA-256", "content": sum }]));
        assert_eq!(
            document["components"][0]["licenses"],
            json!([{ "expression": "MIT OR Apache-2.0" }])
        );
    }
}
