//! `wasi:filesystem` over the simulated disk.
//!
//! No symbolic links and no permissions: the component uses neither. Of times it has that of a file's
//! last change. Writes reach the cache when they are made, so a stream has nothing to flush.

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types as raw};
use wasmtime_wasi::p2::bindings::sync::filesystem::types::{self, ErrorCode};
use wasmtime_wasi::p2::bindings::sync::io::streams;
use wasmtime_wasi::p2::{
    FsError, FsResult, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use crate::disk::{DiskError, Inode, ROOT};
use crate::faults::{CallKind, Failure};
use crate::guest::Guest;
use crate::world::{Lie, Refusal, Shared, Stopped, World};

/// Where the disk's top is in the guest.
pub const GUEST_ROOT: &str = "/data";

/// Bytes that a stream takes or gives at once.
const STREAM_BYTES: usize = 1 << 20;

/// What is behind a `descriptor`.
struct Handle {
    inode: Inode,
    /// From the disk's top, for faults and messages.
    path: String,
    writable: bool,
}

/// What is behind a `directory-entry-stream`.
struct Listing(std::vec::IntoIter<types::DirectoryEntry>);

impl Guest {
    fn handle(&self, descriptor: &Resource<types::Descriptor>) -> FsResult<&Handle> {
        let handle = Resource::<Handle>::new_borrow(descriptor.rep());
        Ok(self.table.get(&handle)?)
    }

    fn push(&mut self, handle: Handle) -> wasmtime::Result<Resource<types::Descriptor>> {
        Ok(Resource::new_own(self.table.push(handle)?.rep()))
    }

    /// Directory, last name and path from the top of what `path` means below a handle.
    fn resolve(
        &self,
        descriptor: &Resource<types::Descriptor>,
        path: &str,
    ) -> FsResult<(Inode, String, String)> {
        let handle = self.handle(descriptor)?;
        let world = self.world.lock();
        let mut names: Vec<&str> = Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    if names.pop().is_none() {
                        return Err(raw::ErrorCode::NotPermitted.into());
                    }
                }
                name => names.push(name),
            }
        }
        let whole = names
            .iter()
            .fold(handle.path.clone(), |path, name| format!("{path}/{name}"));
        let Some((last, parents)) = names.split_last() else {
            // The directory itself: a name that no file can have.
            return Ok((handle.inode, String::new(), whole));
        };
        let directory = parents
            .iter()
            .try_fold(handle.inode, |directory, name| {
                world.disk.lookup(directory, name)
            })
            .map_err(code)?;
        Ok((directory, (*last).to_owned(), whole))
    }
}

fn code(error: DiskError) -> raw::ErrorCode {
    match error {
        DiskError::NotFound => raw::ErrorCode::NoEntry,
        DiskError::Exists => raw::ErrorCode::Exist,
        DiskError::NotDirectory => raw::ErrorCode::NotDirectory,
        DiskError::IsDirectory => raw::ErrorCode::IsDirectory,
        DiskError::NotEmpty => raw::ErrorCode::NotEmpty,
        DiskError::BelowItself => raw::ErrorCode::Invalid,
    }
}

fn failure_code(failure: Failure) -> raw::ErrorCode {
    match failure {
        Failure::NoSpace => raw::ErrorCode::InsufficientSpace,
        Failure::Io => raw::ErrorCode::Io,
    }
}

impl From<Refusal<DiskError>> for FsError {
    fn from(refusal: Refusal<DiskError>) -> FsError {
        match refusal {
            Refusal::Stopped => FsError::trap(Stopped),
            Refusal::Injected(failure) => failure_code(failure).into(),
            Refusal::Impossible(error) => code(error).into(),
        }
    }
}

fn stream_error(refusal: Refusal<DiskError>) -> StreamError {
    match refusal {
        Refusal::Stopped => StreamError::Trap(Stopped.into()),
        Refusal::Injected(failure) => {
            StreamError::LastOperationFailed(failure_code(failure).into())
        }
        Refusal::Impossible(error) => StreamError::LastOperationFailed(code(error).into()),
    }
}

impl types::Host for Guest {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        let code: raw::ErrorCode = error.downcast()?;
        Ok(code.into())
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<streams::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        Ok(error
            .downcast_ref::<raw::ErrorCode>()
            .map(|code| (*code).into()))
    }
}

impl types::HostDescriptor for Guest {
    fn read_via_stream(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        offset: u64,
    ) -> FsResult<Resource<streams::InputStream>> {
        let file = self.open_file(&descriptor, offset)?;
        let stream: streams::InputStream = Box::new(file);
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        offset: u64,
    ) -> FsResult<Resource<streams::OutputStream>> {
        let file = self.open_file(&descriptor, offset)?;
        let stream: streams::OutputStream = Box::new(file);
        Ok(self.table.push(stream)?)
    }

    fn append_via_stream(
        &mut self,
        descriptor: Resource<types::Descriptor>,
    ) -> FsResult<Resource<streams::OutputStream>> {
        let mut file = self.open_file(&descriptor, 0)?;
        file.appends = true;
        let stream: streams::OutputStream = Box::new(file);
        Ok(self.table.push(stream)?)
    }

    fn advise(
        &mut self,
        _: Resource<types::Descriptor>,
        _: u64,
        _: u64,
        _: types::Advice,
    ) -> FsResult<()> {
        Ok(())
    }

    fn sync_data(&mut self, descriptor: Resource<types::Descriptor>) -> FsResult<()> {
        let handle = self.handle(&descriptor)?;
        let (path, inode) = (handle.path.clone(), handle.inode);
        Ok(self
            .world
            .lock()
            .sync("descriptor.sync-data", &path, inode)?)
    }

    fn get_flags(
        &mut self,
        descriptor: Resource<types::Descriptor>,
    ) -> FsResult<types::DescriptorFlags> {
        let handle = self.handle(&descriptor)?;
        let mut flags = types::DescriptorFlags::READ;
        if handle.writable {
            flags |= if self.world.lock().disk.is_directory(handle.inode) {
                types::DescriptorFlags::MUTATE_DIRECTORY
            } else {
                types::DescriptorFlags::WRITE
            };
        }
        Ok(flags)
    }

    fn get_type(
        &mut self,
        descriptor: Resource<types::Descriptor>,
    ) -> FsResult<types::DescriptorType> {
        let handle = self.handle(&descriptor)?;
        Ok(self.world.lock().kind(handle.inode))
    }

    fn set_size(&mut self, descriptor: Resource<types::Descriptor>, len: u64) -> FsResult<()> {
        let handle = self.handle(&descriptor)?;
        Ok(self.world.lock().call(
            CallKind::Change,
            "descriptor.set-size",
            &handle.path,
            |world| world.disk.set_len(handle.inode, len),
        )?)
    }

    fn set_times(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        _: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        let inode = self.handle(&descriptor)?.inode;
        if let types::NewTimestamp::Timestamp(time) = modified {
            let time = time.seconds * 1_000_000_000 + u64::from(time.nanoseconds);
            self.world.lock().disk.set_modified(inode, time);
        }
        Ok(())
    }

    fn read(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        len: u64,
        offset: u64,
    ) -> FsResult<(Vec<u8>, bool)> {
        let handle = self.handle(&descriptor)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(STREAM_BYTES);
        let bytes =
            self.world
                .lock()
                .call(CallKind::Read, "descriptor.read", &handle.path, |world| {
                    world.disk.read(handle.inode, offset, len)
                })?;
        let end = bytes.is_empty();
        Ok((bytes, end))
    }

    fn write(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        bytes: Vec<u8>,
        offset: u64,
    ) -> FsResult<u64> {
        let handle = self.handle(&descriptor)?;
        if !handle.writable {
            return Err(raw::ErrorCode::BadDescriptor.into());
        }
        let (written, failure) = self.world.lock().write(
            "descriptor.write",
            &handle.path,
            handle.inode,
            offset,
            &bytes,
        )?;
        match failure {
            // A short write says nothing of why; the next one would.
            Some(failure) if written == 0 => Err(failure_code(failure).into()),
            _ => Ok(written as u64),
        }
    }

    fn read_directory(
        &mut self,
        descriptor: Resource<types::Descriptor>,
    ) -> FsResult<Resource<types::DirectoryEntryStream>> {
        let handle = self.handle(&descriptor)?;
        let entries: Vec<types::DirectoryEntry> = {
            let mut world = self.world.lock();
            let entries = world.call(
                CallKind::Read,
                "descriptor.read-directory",
                &handle.path,
                |world| world.disk.entries(handle.inode).cloned(),
            )?;
            entries
                .into_iter()
                .map(|(name, inode)| types::DirectoryEntry {
                    type_: world.kind(inode),
                    name,
                })
                .collect()
        };
        let listing = self.table.push(Listing(entries.into_iter()))?;
        Ok(Resource::new_own(listing.rep()))
    }

    fn sync(&mut self, descriptor: Resource<types::Descriptor>) -> FsResult<()> {
        let handle = self.handle(&descriptor)?;
        let mut world = self.world.lock();
        if world.habits.syncs_no_folders && world.disk.is_directory(handle.inode) {
            return Err(raw::ErrorCode::Unsupported.into());
        }
        Ok(world.sync("descriptor.sync", &handle.path, handle.inode)?)
    }

    fn create_directory_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let (directory, name, path) = self.resolve(&descriptor, &path)?;
        if name.is_empty() {
            return Err(raw::ErrorCode::Exist.into());
        }
        self.world.lock().call(
            CallKind::Change,
            "descriptor.create-directory-at",
            &path,
            |world| world.disk.create_directory(directory, &name),
        )?;
        Ok(())
    }

    fn stat(&mut self, descriptor: Resource<types::Descriptor>) -> FsResult<types::DescriptorStat> {
        let handle = self.handle(&descriptor)?;
        Ok(self
            .world
            .lock()
            .call(CallKind::Read, "descriptor.stat", &handle.path, |world| {
                Ok(world.stat(handle.inode))
            })?)
    }

    fn stat_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        _: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        let (directory, name, path) = self.resolve(&descriptor, &path)?;
        Ok(self
            .world
            .lock()
            .call(CallKind::Read, "descriptor.stat-at", &path, |world| {
                let inode = world.entry(directory, &name)?;
                Ok(world.stat(inode))
            })?)
    }

    fn set_times_at(
        &mut self,
        _: Resource<types::Descriptor>,
        _: types::PathFlags,
        _: String,
        _: types::NewTimestamp,
        _: types::NewTimestamp,
    ) -> FsResult<()> {
        Ok(())
    }

    fn link_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        flags: types::PathFlags,
        old_path: String,
        new_descriptor: Resource<types::Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        // As Wasmtime does.
        if flags.contains(types::PathFlags::SYMLINK_FOLLOW) {
            return Err(raw::ErrorCode::Invalid.into());
        }
        let (from, from_name, _) = self.resolve(&descriptor, &old_path)?;
        let (to, to_name, path) = self.resolve(&new_descriptor, &new_path)?;
        let mut world = self.world.lock();
        if world.habits.refuses_links {
            // The call is one in which an instance may stop all the same.
            world.call(CallKind::Read, "descriptor.link-at", &path, |_| {
                Ok::<(), DiskError>(())
            })?;
            return Err(raw::ErrorCode::Unsupported.into());
        }
        Ok(
            world.call(CallKind::Change, "descriptor.link-at", &path, |world| {
                let inode = world.disk.lookup(from, &from_name)?;
                world.disk.link(inode, to, &to_name)
            })?,
        )
    }

    fn open_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        _: types::PathFlags,
        path: String,
        open: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Resource<types::Descriptor>> {
        let (directory, name, path) = self.resolve(&descriptor, &path)?;
        let writable = flags
            .intersects(types::DescriptorFlags::WRITE | types::DescriptorFlags::MUTATE_DIRECTORY);
        let changes = open.intersects(types::OpenFlags::CREATE | types::OpenFlags::TRUNCATE);
        let kind = if changes {
            CallKind::Change
        } else {
            CallKind::Read
        };
        let inode = self
            .world
            .lock()
            .call(kind, "descriptor.open-at", &path, |world| {
                let found = world.entry(directory, &name);
                let inode = match found {
                    Ok(_) if open.contains(types::OpenFlags::EXCLUSIVE) => {
                        return Err(DiskError::Exists);
                    }
                    Err(DiskError::NotFound) if open.contains(types::OpenFlags::CREATE) => {
                        world.disk.create_file(directory, &name)?
                    }
                    found => found?,
                };
                let is_directory = world.disk.is_directory(inode);
                if open.contains(types::OpenFlags::DIRECTORY) && !is_directory {
                    return Err(DiskError::NotDirectory);
                }
                if is_directory && flags.contains(types::DescriptorFlags::WRITE) {
                    return Err(DiskError::IsDirectory);
                }
                if open.contains(types::OpenFlags::TRUNCATE) {
                    world.disk.set_len(inode, 0)?;
                }
                Ok(inode)
            })?;
        self.push(Handle {
            inode,
            path,
            writable,
        })
        .map_err(FsError::trap)
    }

    fn readlink_at(&mut self, _: Resource<types::Descriptor>, _: String) -> FsResult<String> {
        Err(raw::ErrorCode::Invalid.into())
    }

    fn remove_directory_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let (directory, name, path) = self.resolve(&descriptor, &path)?;
        Ok(self.world.lock().call(
            CallKind::Change,
            "descriptor.remove-directory-at",
            &path,
            |world| world.disk.remove_directory(directory, &name),
        )?)
    }

    fn rename_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        old_path: String,
        new_descriptor: Resource<types::Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let (from, from_name, _) = self.resolve(&descriptor, &old_path)?;
        let (to, to_name, path) = self.resolve(&new_descriptor, &new_path)?;
        let mut world = self.world.lock();
        let name = "descriptor.rename-at";
        let replaced = world.disk.lookup(to, &to_name);
        // What an opening tries the disk with would notice it at once.
        let copies = world.habits.renames_by_copy && !path.contains("/.trial");
        if let (true, Ok(replaced)) = (copies, replaced) {
            let source = world.disk.lookup(from, &from_name).map_err(code)?;
            let bytes = world
                .disk
                .read(source, 0, world.disk.len(source) as usize)
                .map_err(code)?;
            world.call(CallKind::Change, name, &path, |world| {
                world.disk.set_len(replaced, 0)
            })?;
            world.write(name, &path, replaced, 0, &bytes)?;
            world.sync(name, &path, replaced)?;
            return Ok(world.call(CallKind::Change, name, &path, |world| {
                world.disk.remove_file(from, &from_name)
            })?);
        }
        Ok(world.call(CallKind::Change, name, &path, |world| {
            world.disk.rename((from, &from_name), (to, &to_name))
        })?)
    }

    fn symlink_at(&mut self, _: Resource<types::Descriptor>, _: String, _: String) -> FsResult<()> {
        Err(raw::ErrorCode::Unsupported.into())
    }

    fn unlink_file_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let (directory, name, path) = self.resolve(&descriptor, &path)?;
        Ok(self.world.lock().call(
            CallKind::Change,
            "descriptor.unlink-file-at",
            &path,
            |world| world.disk.remove_file(directory, &name),
        )?)
    }

    fn is_same_object(
        &mut self,
        one: Resource<types::Descriptor>,
        other: Resource<types::Descriptor>,
    ) -> wasmtime::Result<bool> {
        let inode = |descriptor: &Resource<types::Descriptor>| {
            let handle = Resource::<Handle>::new_borrow(descriptor.rep());
            self.table.get(&handle).map(|handle| handle.inode)
        };
        Ok(inode(&one)? == inode(&other)?)
    }

    fn metadata_hash(
        &mut self,
        descriptor: Resource<types::Descriptor>,
    ) -> FsResult<types::MetadataHashValue> {
        let inode = self.handle(&descriptor)?.inode;
        Ok(hash(&mut self.world.lock(), inode))
    }

    fn metadata_hash_at(
        &mut self,
        descriptor: Resource<types::Descriptor>,
        _: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        let (directory, name, _) = self.resolve(&descriptor, &path)?;
        let mut world = self.world.lock();
        let inode = world.entry(directory, &name).map_err(code)?;
        Ok(hash(&mut world, inode))
    }

    fn drop(&mut self, descriptor: Resource<types::Descriptor>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Handle>::new_own(descriptor.rep()))?;
        Ok(())
    }
}

const MONTH_NS: u64 = 30 * 24 * 3600 * 1_000_000_000;

/// Tells files apart, as an inode number does.
fn hash(world: &mut World, inode: Inode) -> types::MetadataHashValue {
    let lower = match world.habits.identity {
        Lie::None => inode.0,
        Lie::Same => 7,
        Lie::Size => world.disk.len(inode),
        Lie::Growing => inode.0 | (world.disk.len(inode) << 32),
        Lie::Month => {
            let month = world.disk.modified(inode).unwrap_or(0) / MONTH_NS;
            inode.0 | (month << 32)
        }
        Lie::Random => world.random_u64(),
    };
    types::MetadataHashValue { lower, upper: 0 }
}

impl types::HostDirectoryEntryStream for Guest {
    fn read_directory_entry(
        &mut self,
        stream: Resource<types::DirectoryEntryStream>,
    ) -> FsResult<Option<types::DirectoryEntry>> {
        let listing = Resource::<Listing>::new_borrow(stream.rep());
        Ok(self.table.get_mut(&listing)?.0.next())
    }

    fn drop(&mut self, stream: Resource<types::DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}

impl preopens::Host for Guest {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<types::Descriptor>, String)>> {
        let top = self.push(Handle {
            inode: ROOT,
            path: String::new(),
            writable: true,
        })?;
        Ok(vec![(top, GUEST_ROOT.to_owned())])
    }
}

impl crate::world::World {
    fn kind(&self, inode: Inode) -> types::DescriptorType {
        if self.disk.is_directory(inode) {
            types::DescriptorType::Directory
        } else {
            types::DescriptorType::RegularFile
        }
    }

    fn entry(&self, directory: Inode, name: &str) -> Result<Inode, DiskError> {
        if name.is_empty() {
            return Ok(directory);
        }
        self.disk.lookup(directory, name)
    }

    fn stat(&self, inode: Inode) -> types::DescriptorStat {
        let modified = self.disk.modified(inode).map(|time| types::Datetime {
            seconds: time / 1_000_000_000,
            nanoseconds: (time % 1_000_000_000) as u32,
        });
        types::DescriptorStat {
            type_: self.kind(inode),
            // Nothing that runs here asks how many names a file has.
            link_count: 1,
            size: self.disk.len(inode) + u64::from(self.habits.lengthens),
            data_access_timestamp: None,
            data_modification_timestamp: modified,
            status_change_timestamp: None,
        }
    }
}

/// A stream of a file's bytes, in or out.
struct FileStream {
    world: Shared,
    inode: Inode,
    path: String,
    position: u64,
    appends: bool,
}

impl Guest {
    fn open_file(
        &self,
        descriptor: &Resource<types::Descriptor>,
        position: u64,
    ) -> FsResult<FileStream> {
        let handle = self.handle(descriptor)?;
        if self.world.lock().disk.is_directory(handle.inode) {
            return Err(raw::ErrorCode::IsDirectory.into());
        }
        Ok(FileStream {
            world: self.world.clone(),
            inode: handle.inode,
            path: handle.path.clone(),
            position,
            appends: false,
        })
    }
}

#[async_trait]
impl Pollable for FileStream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for FileStream {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let bytes = self
            .world
            .lock()
            .call(CallKind::Read, "input-stream.read", &self.path, |world| {
                world
                    .disk
                    .read(self.inode, self.position, size.min(STREAM_BYTES))
            })
            .map_err(stream_error)?;
        if bytes.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        self.position += bytes.len() as u64;
        Ok(bytes.into())
    }
}

#[async_trait]
impl OutputStream for FileStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut world = self.world.lock();
        if self.appends {
            self.position = world.disk.len(self.inode);
        }
        let (written, failure) = world
            .write(
                "output-stream.write",
                &self.path,
                self.inode,
                self.position,
                &bytes,
            )
            .map_err(stream_error)?;
        self.position += written as u64;
        match failure {
            Some(failure) => Err(stream_error(Refusal::Injected(failure))),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STREAM_BYTES)
    }
}
