//! A seat for the powers that need one: a display server without a display, a message bus, and Debian's daemons on them. Each has its
//! address in a folder or on a port of its own, and ends with its handle.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Line, PATIENCE, Process};
use crate::tools::{Missing, find};

/// An X11 server that shows its screen to nobody: `Xvfb`.
#[derive(Debug)]
pub struct XServer {
    process: Option<Process>,
    /// its name: `:7`
    pub display: String,
}

impl XServer {
    /// One whose screen has these pixels and bits of colour: `800x600x24`.
    pub fn start(screen: &str) -> Result<Result<Self, Missing>> {
        let program = match find("Xvfb", "xvfb") {
            Ok(program) => program,
            Err(missing) => return Ok(Err(missing)),
        };
        let mut command = Command::new(program);
        // It takes the first number that is free, and says which.
        command.args(["-displayfd", "1", "-screen", "0", screen, "-nolisten", "tcp"]);
        let mut process = Process::start(command)?;
        let line = process.wait_until("its number", |line| matches!(line, Line::Out(text) if text.parse::<u16>().is_ok()))?;
        Ok(Ok(XServer { process: Some(process), display: format!(":{}", line.text()) }))
    }

    /// Ends it, as a session ends.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |process| process.stop().map(drop))
    }
}

impl Drop for XServer {
    fn drop(&mut self) {
        // Asked, so that it takes its socket and its lock away.
        let _ = self.stop();
    }
}

/// A message bus: `dbus-daemon`.
#[derive(Debug)]
pub struct Bus {
    _process: Process,
    _folder: TempDir,
    /// where it listens
    pub address: String,
}

const SESSION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:dir=FOLDER</listen>
  <servicedir>FOLDER/services</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

impl Bus {
    /// A bus that starts `dunst`, on that X11 server, when somebody shows the first message; or one with nobody on it.
    pub fn start(desktop: Option<&XServer>) -> Result<Result<Self, Missing>> {
        let dunst = desktop.map(|_| find("dunst", "dunst")).transpose();
        let (program, dunst) = match find("dbus-daemon", "dbus-daemon").and_then(|program| Ok((program, dunst?))) {
            Ok(found) => found,
            Err(missing) => return Ok(Err(missing)),
        };
        let folder = tempfile::tempdir()?;
        let (path, services) = (folder.path().to_str().context("text")?, folder.path().join("services"));
        std::fs::create_dir(&services)?;
        if let Some(dunst) = dunst {
            let service = format!("[D-BUS Service]\nName=org.freedesktop.Notifications\nExec={}\n", dunst.display());
            std::fs::write(services.join("notifications.service"), service)?;
        }
        let config = folder.path().join("bus.conf");
        std::fs::write(&config, SESSION.replace("FOLDER", path))?;
        let mut command = Command::new(program);
        command.arg(format!("--config-file={}", config.display())).args(["--nofork", "--print-address"]);
        // What it starts has its environment.
        command.env("HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path()).env("XDG_RUNTIME_DIR", folder.path());
        command.env("DISPLAY", desktop.map_or("", |server| &server.display)).env_remove("WAYLAND_DISPLAY");
        let mut process = Process::start(command)?;
        let address = process.wait_until("its address", |line| matches!(line, Line::Out(text) if text.starts_with("unix:")))?;
        Ok(Ok(Bus { address: address.text().to_owned(), _process: process, _folder: folder }))
    }
}

/// Debian's `gpsd`, with a receiver that is a connection: sentences of NMEA 0183 over TCP.
#[derive(Debug)]
pub struct Gpsd {
    _process: Process,
    /// where it listens
    pub address: String,
}

impl Gpsd {
    /// One whose receiver says these sentences again and again; `*` and their checksums are added.
    pub fn start(sentences: &'static [&str]) -> Result<Result<Self, Missing>> {
        let program = match find("gpsd", "gpsd") {
            Ok(program) => program,
            Err(missing) => return Ok(Err(missing)),
        };
        let receiver = TcpListener::bind("127.0.0.1:0")?;
        let source = format!("tcp://{}", receiver.local_addr()?);
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || receive(&receiver, sentences, &ready));
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["-N", "-n", "-S", &port.to_string(), &source]);
        let process = Process::start(command)?;
        // It listens first and looks for its receivers then.
        is_ready.recv_timeout(PATIENCE).context("gpsd never looked for its receiver")?;
        Ok(Ok(Gpsd { _process: process, address: format!("127.0.0.1:{port}") }))
    }
}

/// gpsd takes no port 0. This one was free a moment ago, and is below those that are given to who asks for any.
fn free_port() -> Result<u16> {
    let start = u16::try_from(std::process::id() % 10_000)?;
    let ports = (0..10_000).map(|step| 20_000 + (start + step) % 10_000);
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("every port is taken")
}

/// How often a receiver says all it knows; real ones do so ten times a second at most.
const CYCLE: Duration = Duration::from_millis(100);

/// Talks to gpsd as long as it listens, at the pace of a receiver: one that never pauses keeps gpsd from its listeners.
fn receive(receiver: &TcpListener, sentences: &[&str], ready: &mpsc::Sender<()>) {
    let framed: String =
        sentences.iter().map(|sentence| format!("${sentence}*{:02X}\r\n", sentence.bytes().fold(0, |sum, byte| sum ^ byte))).collect();
    while let Ok((mut stream, _)) = receiver.accept() {
        // Whoever waited for the first one is gone at the second.
        let _ = ready.send(());
        while stream.write_all(framed.as_bytes()).is_ok() {
            std::thread::sleep(CYCLE);
        }
    }
}
