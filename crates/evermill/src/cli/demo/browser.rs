//! The web page, in the browser of whoever started the demo.

use std::env;

/// Opens the page where a desktop is. Without one, or without a browser, the address on the screen has to do.
pub(super) fn show(page: &str) {
    if has_desktop() {
        open::that_detached(page).ok();
    }
}

/// Whether a browser would open before the eyes of whoever sits at this terminal.
fn has_desktop() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_here = cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    is_here && !is_set("SSH_CONNECTION")
}
