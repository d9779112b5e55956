//! A server of the tests never outlives us. A guard process holds the reading end of a pipe; when we
//! end without having stopped the server, whatever the reason, the pipe closes and the guard kills it.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::workspace::Fault;

/// A server's process and its folder. Dropping it kills the one and removes the other.
pub(crate) struct Guarded {
    pub(crate) server: Child,
    guard: Child,
    pipe: Option<ChildStdin>,
    folder: PathBuf,
}

impl Guarded {
    /// Starts a server, in a process group of its own.
    pub(crate) fn spawn(command: &mut Command, folder: &Path) -> io::Result<Self> {
        let mut server = command.process_group(0).spawn()?;
        match guard(&server, folder) {
            Ok(mut guard) => Ok(Self {
                server,
                pipe: guard.stdin.take(),
                guard,
                folder: folder.to_owned(),
            }),
            Err(error) => {
                drop(server.kill());
                drop(server.wait());
                Err(error)
            }
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Guarded {
    /// The storage goes with the server, so nothing is gained by an orderly shutdown.
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        if let Some(mut pipe) = self.pipe.take() {
            drop(pipe.write_all(b"stopped\n"));
        }
        drop(self.guard.wait());
        remove(&self.folder);
    }
}

/// Reading a word means that we stopped the server ourselves; the end of the pipe means that we
/// are gone.
fn guard(server: &Child, folder: &Path) -> io::Result<Child> {
    const SCRIPT: &str = r#"read -r word && exit 0; kill -9 "$1"; sleep 1; rm -rf "$2""#;
    Command::new("sh")
        .args(["-c", SCRIPT, "evermill-guard", &server.id().to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// Ports of loopback that nobody listens on at the moment.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], Fault> {
    let fault = |error| format!("no free port on loopback: {error}");
    // All of them are held until the last is found, so that none comes twice.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fault)?;
        *port = listener.local_addr().map_err(fault)?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// What is left in a temporary folder harms nobody, so a failure here is not worth a fault.
pub(crate) fn remove(folder: &Path) {
    drop(fs::remove_dir_all(folder));
}
