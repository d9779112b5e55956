//! When to look at a DAG folder again: told by the kernel where it can, and every so often in any case,
//! because some file systems tell nothing. What has changed is found out by looking
//! (`docs/decisions/0013-folder-watch.md`).

use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after};

/// How long nothing may have happened before a folder counts as quiet.
const QUIET: Duration = Duration::from_millis(200);
/// A folder that is never quiet is looked at all the same.
const RESTLESS: Duration = Duration::from_secs(5);
/// How often a folder is looked at without being told to: where the kernel tells, and elsewhere.
pub(super) const LOOK_EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];

/// Waits until nothing has happened for a while.
pub(super) fn until_quiet(news: &Receiver<()>) {
    let begun = Instant::now();
    while begun.elapsed() < RESTLESS {
        crossbeam_channel::select! {
            recv(news) -> told => if told.is_err() { return },
            recv(after(QUIET)) -> _ => return,
        }
    }
}

/// Watches folders; gone with this.
pub(super) struct Watch {
    #[cfg(target_os = "linux")]
    kernel: Option<std::sync::Arc<std::os::fd::OwnedFd>>,
}

#[cfg(target_os = "linux")]
impl Watch {
    /// A message lies in the channel when something has happened.
    pub(super) fn new() -> (Self, Receiver<()>) {
        use rustix::fs::inotify::{CreateFlags, Reader, init};
        let (tell, news) = crossbeam_channel::bounded(1);
        let kernel = init(CreateFlags::CLOEXEC).ok().map(std::sync::Arc::new);
        if let Some(kernel) = kernel.clone() {
            let listen = move || {
                let mut buffer = vec![std::mem::MaybeUninit::uninit(); 16 * 1024];
                let mut reader = Reader::new(&*kernel, &mut buffer);
                while reader.next().is_ok() {
                    // One message that waits says it all.
                    if let Err(crossbeam_channel::TrySendError::Disconnected(())) =
                        tell.try_send(())
                    {
                        return;
                    }
                }
            };
            // Without a thread the folder is looked at every so often.
            drop(
                std::thread::Builder::new()
                    .name("watch".into())
                    .spawn(listen),
            );
        }
        (Self { kernel }, news)
    }

    /// From now on, of what happens in this folder; in vain where the kernel watches no more of them.
    pub(super) fn watch(&mut self, folder: &Path) {
        use rustix::fs::inotify::{WatchFlags, add_watch};
        let wanted = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let Some(kernel) = &self.kernel else { return };
        if let Err(rustix::io::Errno::NOSPC | rustix::io::Errno::NOMEM) =
            add_watch(&**kernel, folder, wanted)
        {
            self.kernel = None;
        }
    }

    /// Whether the kernel tells.
    pub(super) const fn is_told(&self) -> bool {
        self.kernel.is_some()
    }
}

#[cfg(not(target_os = "linux"))]
impl Watch {
    /// Nobody tells.
    pub(super) fn new() -> (Self, Receiver<()>) {
        (Self {}, crossbeam_channel::never())
    }

    pub(super) fn watch(&mut self, _folder: &Path) {}

    pub(super) const fn is_told(&self) -> bool {
        false
    }
}
