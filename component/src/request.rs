//! Requests of Qdrant's points API: what reads is answered from the data, by a reader too; what writes
//! takes the way of every write, through the store.

use edge_sync_engine::{self as engine, Request, Shard, Strictness};
use serde_json::Value;

use crate::error::{Error, Result, invalid};
use crate::reader::Reader;
use crate::store::Store;

/// What an instance answers from.
pub enum Source<'a> {
    /// The shard that it has open.
    Store(&'a mut Store),
    /// A copy of the one that another instance has.
    Reader(&'a Reader),
}

/// The `result` of a request, or the status and the words with which it is refused.
pub type Answer = std::result::Result<Value, (u16, String)>;

impl Source<'_> {
    /// The engine, unless it is in doubt.
    pub fn shard(&self) -> Result<&Shard> {
        match self {
            Self::Store(store) => store.shard(),
            Self::Reader(reader) => reader.shard(),
        }
    }

    fn store(&mut self) -> Result<&mut Store> {
        match self {
            Self::Store(store) => Ok(store),
            Self::Reader(_) => Err(invalid("request", "a reader answers what reads, only")),
        }
    }
}

/// Runs a request, read strictly.
pub fn request(mut source: Source<'_>, method: &str, path: &str, body: &str) -> Result<Value> {
    match engine::parse_request(method, path, body)? {
        Request::Read(read) => Ok(source.shard()?.read(read)?),
        Request::Write(write) => source.store()?.write_request(path, write),
        Request::Configure(changes) => {
            let store = source.store()?;
            let config = store.shard()?.config();
            store.configure(&config.changed(&changes, Strictness::Strict)?)?;
            Ok(Value::Bool(true))
        }
    }
}

/// As [`request`], read and refused as a server does it. A refusal is its status and words.
pub fn answer(mut source: Source<'_>, method: &str, path: &str, body: &str) -> Result<Answer> {
    let request = match engine::parse_request_as(Strictness::Server, method, path, body) {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let result = match request {
        Request::Read(read) => {
            let result = source.shard()?.read(read);
            return result.map_or_else(refused, |it| Ok(Ok(it)));
        }
        Request::Write(write) => {
            let store = source.store()?;
            if let Err(error) = store.shard()?.validate(&write) {
                return refused(error);
            }
            store.write_request(path, write)
        }
        Request::Configure(changes) => {
            let store = source.store()?;
            let config = store.shard()?.config();
            match config.changed(&changes, Strictness::Server) {
                Ok(config) => store.configure(&config).map(|()| Value::Bool(true)),
                Err(error) => return refused(error),
            }
        }
    };
    match result {
        Err(Error::NotFound(what)) => refused(engine::Error::NotFound(what)),
        Err(Error::AlreadyExists(what)) => refused(engine::Error::AlreadyExists(what)),
        Err(Error::Unsupported(why)) => refused(engine::Error::Unsupported(why)),
        Err(Error::InvalidInput(it)) => refused(engine::Error::invalid(it.field, it.message)),
        result => result.map(Ok),
    }
}

/// A refusal as an answer; any other error stays one.
fn refused(error: engine::Error) -> Result<Answer> {
    match error.as_refusal() {
        Some(refusal) => Ok(Err(refusal)),
        None => Err(error.into()),
    }
}
