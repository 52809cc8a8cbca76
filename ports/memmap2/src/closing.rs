//! Descriptors whose closing is put off until no map needs them.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Closing(HashMap<RawFd, Holding>);

#[derive(Debug, Default)]
struct Holding {
    maps: usize,
    closed_by_owner: bool,
}

static CLOSING: Mutex<Option<Closing>> = Mutex::new(None);

fn closing() -> MutexGuard<'static, Option<Closing>> {
    CLOSING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps `fd` open until the matching [`resume`].
pub(crate) fn put_off(fd: RawFd) {
    closing().get_or_insert_default().put_off(fd);
}

/// Ends one [`put_off`]. Returns whether `fd` is to be closed now.
pub(crate) fn resume(fd: RawFd) -> bool {
    closing().get_or_insert_default().resume(fd)
}

/// Its owner closes `fd`. Returns whether that is to be done now.
pub(crate) fn close(fd: RawFd) -> bool {
    closing().get_or_insert_default().close(fd)
}

impl Closing {
    fn put_off(&mut self, fd: RawFd) {
        self.0.entry(fd).or_default().maps += 1;
    }

    fn resume(&mut self, fd: RawFd) -> bool {
        let Some(holding) = self.0.get_mut(&fd) else {
            return false;
        };
        holding.maps -= 1;
        if holding.maps > 0 {
            return false;
        }
        self.0.remove(&fd).is_some_and(|held| held.closed_by_owner)
    }

    fn close(&mut self, fd: RawFd) -> bool {
        match self.0.get_mut(&fd) {
            Some(holding) => {
                holding.closed_by_owner = true;
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_once_when_owner_and_maps_are_done() {
        let mut closing = Closing::default();
        assert!(closing.close(3), "nothing holds it");

        closing.put_off(4);
        closing.put_off(4);
        assert!(!closing.close(4));
        assert!(!closing.resume(4));
        assert!(closing.resume(4));
        assert!(closing.close(4), "the number is free for another file");

        closing.put_off(5);
        assert!(!closing.resume(5), "the owner has it open");
        assert!(closing.close(5));
    }
}
