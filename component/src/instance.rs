//! What an instance holds between calls.
//!
//! A component instance runs one call at a time and holds at most one shard, so its state is one
//! thread-local slot.

use std::cell::RefCell;

use edge_sync_engine::Shard;
use edge_sync_upload::Binding;
use serde_json::Value;

use crate::bindings::restore::{Offer, PullOutcome, Staged};
use crate::bindings::shard::Opened;
use crate::error::{Error, Result, invalid};
use crate::pull::Pull;
use crate::reader::Reader;
use crate::request::{self as requests, Source};
use crate::restore::Staging;
use crate::store::Store;

/// What an instance holds between calls.
enum State {
    Closed,
    Open(Box<Store>),
    Pulling(Box<Pull>),
    Staged(Box<Staging>),
    Reading(Box<Reader>),
}

thread_local! {
    static STATE: RefCell<State> = const { RefCell::new(State::Closed) };
}

fn with_state<T>(run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
    STATE.with(|state| match state.try_borrow_mut() {
        Ok(mut state) => run(&mut state),
        Err(_) => Err(Error::Internal(
            "a call is under way in this instance".to_owned(),
        )),
    })
}

/// Runs with the open shard.
pub fn with_store<T>(run: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
    with_state(|state| match state {
        State::Open(store) => run(store),
        _ => Err(Error::NotOpen),
    })
}

/// As [`with_store`]; none if no shard is open.
pub fn with_any_store<T>(run: impl FnOnce(&mut Store) -> Result<T>) -> Result<Option<T>> {
    match with_store(run) {
        Err(Error::NotOpen) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Runs with the open shard, or with a reader's copy of one.
pub fn with_source<T>(run: impl FnOnce(Source<'_>) -> Result<T>) -> Result<T> {
    with_state(|state| match state {
        State::Open(store) => run(Source::Store(store)),
        State::Reading(reader) => run(Source::Reader(reader)),
        _ => Err(Error::NotOpen),
    })
}

/// Carries a request out with what is open; answers the REST `result`.
pub fn request(method: &str, path: &str, body: &str) -> Result<Value> {
    with_source(|source| requests::request(source, method, path, body))
}

/// Runs with the data of either.
pub fn with_shard<T>(run: impl FnOnce(&Shard) -> Result<T>) -> Result<T> {
    with_source(|source| run(source.shard()?))
}

/// Puts what `make` opens into the instance, which must hold nothing.
pub fn open_with(make: impl FnOnce() -> Result<(Store, Opened)>) -> Result<Opened> {
    with_state(|state| match state {
        State::Closed => {
            let (store, opened) = make()?;
            *state = State::Open(Box::new(store));
            Ok(opened)
        }
        _ => Err(Error::AlreadyOpen),
    })
}

/// Flushes and closes the open shard; answers what a person should know of it.
pub fn close() -> Result<Vec<String>> {
    with_state(|state| match std::mem::replace(state, State::Closed) {
        State::Open(store) => store.close(),
        other => {
            *state = other;
            Err(Error::NotOpen)
        }
    })
}

/// Runs with the staged generation.
pub fn with_staging<T>(run: impl FnOnce(&Staging) -> Result<T>) -> Result<T> {
    with_state(|state| match state {
        State::Staged(staging) => run(staging),
        _ => Err(invalid("staged", "nothing is staged in this instance")),
    })
}

/// Puts the staged generation in force, and leaves it open. `binding`: the collection that it came from.
pub fn promote(binding: Option<&Binding>) -> Result<Opened> {
    with_state(|state| match std::mem::replace(state, State::Closed) {
        State::Staged(staging) => {
            let (store, opened) = staging.promote(binding)?;
            *state = State::Open(Box::new(store));
            Ok(opened)
        }
        other => {
            *state = other;
            Err(invalid("promote", "nothing is staged in this instance"))
        }
    })
}

/// Makes what is staged the state of this instance. The answer to a pull may be a snapshot of
/// everything.
pub fn stage(make: impl FnOnce() -> Result<(Staging, Staged)>) -> Result<Staged> {
    with_state(|state| match state {
        State::Open(_) | State::Staged(_) | State::Reading(_) => Err(Error::AlreadyOpen),
        State::Closed | State::Pulling(_) => {
            let (staging, staged) = make()?;
            *state = State::Staged(Box::new(staging));
            Ok(staged)
        }
    })
}

/// Begins a pull in the instance, which has nothing open or staged.
pub fn begin_pull(make: impl FnOnce() -> Result<Pull>) -> Result<Vec<Offer>> {
    with_state(|state| match state {
        State::Open(_) | State::Staged(_) | State::Reading(_) => Err(Error::AlreadyOpen),
        State::Closed | State::Pulling(_) => {
            let pull = make()?;
            let offers = pull.offers();
            *state = State::Pulling(Box::new(pull));
            Ok(offers)
        }
    })
}

/// Runs with the pull that was begun.
pub fn with_pull<T>(run: impl FnOnce(&mut Pull) -> Result<T>) -> Result<T> {
    with_state(|state| match state {
        State::Pulling(pull) => run(pull),
        _ => Err(no_pull()),
    })
}

/// Makes what the pull stages the state of this instance; none if there is to be another answer.
pub fn stage_pull(
    stage: impl FnOnce(&mut Pull) -> Result<Option<(Staging, Staged)>>,
) -> Result<PullOutcome> {
    with_state(|state| {
        let State::Pulling(pull) = state else {
            return Err(no_pull());
        };
        match stage(pull)? {
            Some((staging, staged)) => {
                *state = State::Staged(Box::new(staging));
                Ok(PullOutcome::Staged(staged))
            }
            None => Ok(PullOutcome::Again(pull.offers())),
        }
    })
}

fn no_pull() -> Error {
    invalid("pull", "none was begun in this instance")
}

/// As [`stage`], in an instance that holds nothing; none if there was nothing to stage.
pub fn stage_if_any(
    make: impl FnOnce() -> Result<Option<(Staging, Staged)>>,
) -> Result<Option<Staged>> {
    with_state(|state| match state {
        State::Closed => Ok(make()?.map(|(staging, staged)| {
            *state = State::Staged(Box::new(staging));
            staged
        })),
        _ => Err(Error::AlreadyOpen),
    })
}

/// Runs in an instance that holds nothing.
pub fn with_nothing<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    with_state(|state| match state {
        State::Closed => run(),
        _ => Err(Error::AlreadyOpen),
    })
}

/// Gives up what is staged, or the pull.
pub fn abandon() -> Result<()> {
    with_state(|state| match state {
        State::Staged(_) | State::Pulling(_) => {
            *state = State::Closed;
            Ok(())
        }
        _ => Err(invalid("abandon", "nothing is staged in this instance")),
    })
}

/// Makes the instance, which must hold nothing, a reader.
pub fn read_with(make: impl FnOnce() -> Result<Reader>) -> Result<()> {
    with_state(|state| match state {
        State::Closed => {
            *state = State::Reading(Box::new(make()?));
            Ok(())
        }
        _ => Err(Error::AlreadyOpen),
    })
}

/// Runs with the reader.
pub fn with_reader<T>(run: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
    with_state(|state| match state {
        State::Reading(reader) => run(reader),
        _ => Err(Error::NotOpen),
    })
}
