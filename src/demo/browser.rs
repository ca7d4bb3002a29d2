//! Opens the page in a browser, where somebody is likely to want that.
//!
//! In: an address and what the process stands in. Out: at most one other process, which nobody waits for. Invariant: the
//! demo never fails or waits because of it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// True where a person sits who has a screen: a terminal, a display, no build server.
fn is_wanted(on_terminal: bool, var: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name| var(name).is_some_and(|value| !value.is_empty());
    let has_display = cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    on_terminal && has_display && !is_set("CI")
}

/// Opens the page, if [`is_wanted`]; whether it tried.
pub(super) fn open(page: SocketAddr) -> bool {
    if !is_wanted(std::io::stdout().is_terminal(), |name| std::env::var_os(name)) {
        return false;
    }
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(format!("http://{page}/")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    // It may stay as long as the browser does; somebody has to take note of its end.
    std::thread::Builder::new().name("demo-browser".into()).spawn(move || child.wait()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_opens_only_for_a_person_with_a_screen() {
        let with = |set: &'static [&'static str]| {
            move |name: &str| set.contains(&name).then(|| OsString::from(":0"))
        };
        assert!(is_wanted(true, with(&["DISPLAY"])));
        assert!(is_wanted(true, with(&["WAYLAND_DISPLAY"])));
        assert!(!is_wanted(false, with(&["DISPLAY"])), "the output goes to a file or a pipe");
        assert!(!is_wanted(true, with(&["DISPLAY", "CI"])), "a build server");
        assert_eq!(is_wanted(true, with(&[])), cfg!(target_os = "macos"), "no screen");
        assert!(!is_wanted(true, |name| (name == "DISPLAY").then(OsString::new)), "set to nothing");
    }
}
