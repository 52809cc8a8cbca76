//! Long work: calls for async callers, each on a thread of its own, so that no executor is kept waiting,
//! and threads that let others go first.

use tokio::sync::oneshot;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Runs `work` on a thread of its own. Any executor can wait for it. If the future is dropped, what
/// `work` is given is cancelled: the work stops at its next good moment.
pub(crate) async fn run<R, F>(what: &'static str, work: F) -> Result<R>
where
    R: Send + 'static,
    F: FnOnce(&Cancel) -> Result<R> + Send + 'static,
{
    run_until(&Cancel::new(), what, work).await
}

/// [`run`] that `cancel` ends as well.
pub(crate) async fn run_until<R, F>(cancel: &Cancel, what: &'static str, work: F) -> Result<R>
where
    R: Send + 'static,
    F: FnOnce(&Cancel) -> Result<R> + Send + 'static,
{
    let (reply, outcome) = oneshot::channel();
    let given_up = CancelOnDrop(cancel.follower());
    let cancel = given_up.0.clone();
    std::thread::Builder::new()
        .name(format!("edge-sync {what}"))
        .spawn(move || {
            let _ = reply.send(work(&cancel));
        })
        .map_err(Error::io("start a thread for", what))?;
    outcome.await.map_err(|_| Error::Closed(what))?
}

/// Steps of priority between a thread that builds for minutes and those that answer.
#[cfg(target_os = "linux")]
const STEPS_BACK: i32 = 10;

/// Lets other threads go first from now on. Elsewhere than on Linux, a thread has no priority of its own,
/// and nothing changes.
pub(crate) fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(STEPS_BACK) {
        tracing::debug!("a thread that builds keeps its priority: {error}");
    }
}

/// After the end of the work, there is nothing to cancel.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_steps_back_does() {
        let of_this_thread = || rustix::process::getpriority_process(None).unwrap();
        let before = of_this_thread();
        let behind = std::thread::spawn(move || {
            step_back();
            of_this_thread()
        });
        assert_eq!(behind.join().unwrap(), (before + STEPS_BACK).min(19));
        assert_eq!(of_this_thread(), before);
    }
}
