//! What the component is made of, as a CycloneDX document: every crate that is linked into it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, PackageId};
use serde_json::{Value, json};

/// The document for the root package of a resolved graph, in which build and test dependencies do not count.
///
/// # Errors
/// Where the graph has no root.
pub fn document(metadata: &Metadata, version: &str) -> Result<Value> {
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
        json!({
            "type": "library",
            "bom-ref": reference(id),
            "name": package.name.to_string(),
            "version": package.version.to_string(),
            "purl": reference(id),
            "licenses": package.license.iter().map(|it| json!({ "expression": it })).collect::<Vec<_>>(),
            // Sources of this repository, or the registry's with its patches.
            "pedigree": { "notes": if package.source.is_some() { "as in the registry" } else { "of this repository" } },
        })
    });
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
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": sorted(components.collect(), "bom-ref"),
        "dependencies": sorted(dependencies.collect(), "ref"),
    }))
}
