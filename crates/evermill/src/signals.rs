//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, INTERRUPTED};

/// Catches both signals from now on. The receiver hears of the first one; the second ends the
/// process with [`INTERRUPTED`].
///
/// # Errors
/// When the system refuses to have them caught.
pub(crate) fn catch() -> Result<Receiver<()>, Failure> {
    let refused = |cause| Failure::failed(format!("cannot catch SIGTERM and SIGINT: {cause}"));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
    let (first, heard) = bounded(1);
    let listen = move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(INTERRUPTED);
            }
            if first.try_send(()).is_err() {
                // Nobody listens any more: the process is ending already.
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
        .map_err(refused)?;
    Ok(heard)
}
