//! Long calls for async callers: each on a thread of its own, so that no executor is kept waiting.

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

/// After the end of the work, there is nothing to cancel.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
