//! The WIT package in the binary form that registries of components have.

use std::path::Path;

use anyhow::{Context, Result};
use wit_parser::Resolve;

/// The package in a folder, with what it depends on below `deps`.
///
/// # Errors
/// Where the files are no WIT package.
pub fn package(folder: &Path) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(folder)
        .with_context(|| folder.display().to_string())?;
    wit_component::encode(&resolve, package, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    #[test]
    fn what_is_encoded_is_the_world() {
        let repository = Repository::of_this_program().expect("the clone");
        let bytes = package(&repository.root().join("wit")).expect("a package");
        assert_eq!(
            bytes,
            package(&repository.root().join("wit")).expect("again")
        );
        let decoded = wit_component::decode(&bytes).expect("a package");
        let (resolve, package) = (decoded.resolve(), decoded.package());
        let world = resolve.packages[package].worlds["edge-sync"];
        assert!(resolve.worlds[world].exports.len() >= 8);
    }
}
