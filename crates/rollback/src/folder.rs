//! Folders as a whole: listing, syncing, removing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Something in the tree.
pub(crate) struct TreeEntry {
    /// Relative to the tree, with `/` between names.
    pub(crate) path: String,
    pub(crate) is_folder: bool,
}

/// What is below `tree`, folders before what is in them, names in order.
pub(crate) fn list(tree: &Path) -> Result<Vec<TreeEntry>> {
    let mut found = Vec::new();
    list_below(tree, "", &mut found)?;
    Ok(found)
}

fn list_below(tree: &Path, folder: &str, found: &mut Vec<TreeEntry>) -> Result<()> {
    let path = tree.join(folder);
    let mut entries = Vec::new();
    for entry in fs::read_dir(&path).map_err(Error::io("list", &path))? {
        let entry = entry.map_err(Error::io("list", &path))?;
        let is_folder = entry
            .file_type()
            .map_err(Error::io("list", &path))?
            .is_dir();
        let name = entry.file_name().into_string().map_err(|name| {
            Error::corrupt(
                &path,
                format!("it holds a name that is not UTF-8: {name:?}"),
            )
        })?;
        entries.push((name, is_folder));
    }
    entries.sort_unstable();
    for (name, is_folder) in entries {
        let path = match folder {
            "" => name,
            _ => format!("{folder}/{name}"),
        };
        found.push(TreeEntry {
            path: path.clone(),
            is_folder,
        });
        if is_folder {
            list_below(tree, &path, found)?;
        }
    }
    Ok(())
}

/// Makes a file's bytes, or a folder's names, durable.
pub(crate) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(Error::io("sync", path))
}

/// Makes the names in `folder` durable, and those of the folders above it up to `tree`.
pub(crate) fn sync_up_to(tree: &Path, folder: &Path) -> Result<()> {
    for folder in folder.ancestors() {
        sync(folder)?;
        if folder == tree {
            break;
        }
    }
    Ok(())
}

/// Removes a file, or a folder with all that is in it. Nothing there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes all folders in `journals` but that of checkpoint `keep`.
pub(crate) fn remove_others(journals: &Path, keep: Option<u64>) -> Result<()> {
    let entries = match fs::read_dir(journals) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", journals)(error)),
    };
    let keep = keep.map(|number| number.to_string());
    let mut others: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", journals))?;
        if keep.as_deref().is_none_or(|keep| entry.file_name() != keep) {
            others.push(entry.path());
        }
    }
    others.sort_unstable();
    others.iter().try_for_each(|path| remove(path))
}
