//! Compiled code in a folder: mapped from its file, so that a process starts without reading what it
//! does not run, and processes share the pages.
//!
//! ```text
//! code/<component>-<compiler>.cwasm   Wasmtime's serialized component
//! code/<component>-<compiler>.json    length, time of change and CRC32C of that file
//! ```
//!
//! `<component>` is the SHA-256 of the component's bytes; `<compiler>` stands for Wasmtime's version,
//! its settings and the processor's features. A file is trusted as the executable is, if nobody but
//! its user may write to the folder and it is what the record beside it says. Both are written under
//! another name, synced, and renamed: the record last.

use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Compiled components that are kept: of several versions, or for several settings.
const MOST_KEPT: usize = 6;

/// How long ago a record may have been marked as used before it is marked again.
const MARK_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the compiled code of one component is.
pub(crate) struct CompiledCode {
    folder: PathBuf,
    name: String,
}

/// What is known of a file of compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    length: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    crc32c: u32,
}

impl CompiledCode {
    /// The code of the component with this SHA-256, as `engine` compiles it, in `folder`.
    pub(crate) fn of(component: &str, engine: &Engine, folder: &Path) -> Self {
        let mut compiler = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut compiler);
        Self {
            folder: folder.to_owned(),
            name: format!("{component}-{:016x}", compiler.finish()),
        }
    }

    /// Maps it. None: it is not there, or not to be trusted, and has to be compiled.
    pub(crate) fn load(&self, engine: &Engine) -> Option<Component> {
        if let Err(why) = check_private(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), "no compiled code: {why}");
            return None;
        }
        let file = self.file();
        match self.check(&file) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(file = %file.display(), "compiled code is not what was written");
                return None;
            }
            Err(why) => {
                tracing::debug!(file = %file.display(), "no compiled code: {why}");
                return None;
            }
        }
        // SAFETY: the code was made by Wasmtime from this component, in a folder that only this
        // user may write to, and is as it was written, as far as `check` can tell: it is trusted as
        // the executable beside it. Wasmtime itself refuses code of another version or processor.
        #[allow(unsafe_code, reason = "mapping is what makes a start cheap")]
        let loaded = unsafe { Component::deserialize_file(engine, &file) };
        match loaded {
            Ok(component) => {
                self.mark_used();
                Some(component)
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), "compiled code is refused: {error:#}");
                None
            }
        }
    }

    /// Stores it for the next process.
    ///
    /// Errors: of the file system, or Wasmtime's.
    pub(crate) fn store(&self, component: &Component) -> io::Result<()> {
        create_private(&self.folder)?;
        check_private(&self.folder)?;
        let code = component
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))?;
        write(&self.folder, &self.file(), &code)?;
        let metadata = fs::metadata(self.file())?;
        let record = Record {
            length: metadata.len(),
            modified: modified(&metadata)?,
            crc32c: crc32c::crc32c(&code),
        };
        write(&self.folder, &self.record(), &serde_json::to_vec(&record)?)?;
        self.remove_others()
    }

    /// Whether the file is what the record says. A file with another time is read: the folder may
    /// have been copied.
    fn check(&self, file: &Path) -> io::Result<bool> {
        let record: Record = serde_json::from_slice(&fs::read(self.record())?)?;
        let metadata = fs::symlink_metadata(file)?;
        if !metadata.is_file() || metadata.len() != record.length {
            return Ok(false);
        }
        if modified(&metadata)? == record.modified {
            return Ok(true);
        }
        if checksum(file)? != record.crc32c {
            return Ok(false);
        }
        let record = Record {
            modified: modified(&metadata)?,
            ..record
        };
        write(&self.folder, &self.record(), &serde_json::to_vec(&record)?)?;
        Ok(true)
    }

    fn mark_used(&self) {
        let mark = || -> io::Result<()> {
            let record = File::options().write(true).open(self.record())?;
            let marked = record.metadata()?.modified()?;
            let now = SystemTime::now();
            if now.duration_since(marked).unwrap_or_default() > MARK_AGAIN {
                record.set_modified(now)?;
            }
            Ok(())
        };
        // It is removed sooner than others then, no more.
        if let Err(error) = mark() {
            tracing::debug!("compiled code cannot be marked as used: {error}");
        }
    }

    /// Removes what has not been used for the longest time.
    fn remove_others(&self) -> io::Result<()> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "json") {
                records.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        records.sort();
        let most = records.len().saturating_sub(MOST_KEPT);
        for (_, record) in records.drain(..most) {
            // The record first: code without one is not trusted.
            fs::remove_file(&record)?;
            fs::remove_file(record.with_extension("cwasm"))?;
        }
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.cwasm", self.name))
    }

    fn record(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }
}

/// Puts a file in place as a whole.
pub(crate) fn write(folder: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

fn checksum(file: &Path) -> io::Result<u32> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum),
            count => sum = crc32c::crc32c_append(sum, buffer.get(..count).unwrap_or_default()),
        }
    }
}

pub(crate) fn modified(metadata: &Metadata) -> io::Result<u64> {
    let since = metadata
        .modified()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(io::Error::other)?;
    u64::try_from(since.as_nanos()).map_err(io::Error::other)
}

#[cfg(unix)]
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(not(unix))]
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Nobody but its user may put code there.
#[cfg(unix)]
pub(crate) fn check_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("others may write to it (mode {:o})", mode & 0o7777),
    ))
}

#[cfg(not(unix))]
pub(crate) fn check_private(folder: &Path) -> io::Result<()> {
    fs::metadata(folder).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn stored(folder: &Path) -> (Engine, CompiledCode) {
        let engine = Engine::default();
        let code = CompiledCode::of("empty", &engine, folder);
        assert!(code.load(&engine).is_none());
        let component = Component::from_binary(&engine, EMPTY).unwrap();
        code.store(&component).unwrap();
        (engine, code)
    }

    #[test]
    fn what_was_stored_is_loaded_and_what_was_changed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("code");
        let (engine, code) = stored(&folder);
        assert!(code.load(&engine).is_some());
        // The same bytes at another time are read and believed, once.
        let file = File::options().write(true).open(code.file()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
        assert!(code.load(&engine).is_some());
        assert!(
            fs::read_to_string(code.record())
                .unwrap()
                .contains("1000000000")
        );

        let good = fs::read(code.file()).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        for bytes in [&bad[..], &good[..good.len() - 1], b""] {
            fs::write(code.file(), bytes).unwrap();
            assert!(code.load(&engine).is_none());
        }
        fs::write(code.file(), &good).unwrap();
        assert!(code.load(&engine).is_some());
        fs::remove_file(code.record()).unwrap();
        assert!(code.load(&engine).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_may_write_to_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("code");
        let (engine, code) = stored(&folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(code.load(&engine).is_none());
        let component = Component::from_binary(&engine, EMPTY).unwrap();
        assert!(code.store(&component).is_err());
    }

    #[test]
    fn settings_and_components_have_code_of_their_own_and_old_code_goes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("code");
        let (engine, code) = stored(&folder);
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        assert_ne!(CompiledCode::of("empty", &other, &folder).name, code.name);
        assert_ne!(
            CompiledCode::of("another", &engine, &folder).name,
            code.name
        );

        let component = Component::from_binary(&engine, EMPTY).unwrap();
        let record = File::options().write(true).open(code.record()).unwrap();
        record.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        for number in 0..MOST_KEPT {
            let name = format!("other-{number}");
            let other = CompiledCode {
                folder: folder.clone(),
                name,
            };
            other.store(&component).unwrap();
        }
        assert!(!code.file().exists() && !code.record().exists());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2 * MOST_KEPT);
    }
}
