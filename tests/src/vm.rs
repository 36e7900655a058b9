//! A small virtual machine for what this one lacks, such as a camera: Debian's kernel under qemu's own emulation (no
//! KVM, no root, no disk, no network), a busybox and the real binaries in an initramfs, commands over the serial line.
//!
//! Every wait is for a line and has an end. The machine dies with its handle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::process::{Process, Ran};
use crate::tools::{self, Missing};

pub mod initramfs;
pub mod kernel;

pub use initramfs::Initramfs;
pub use kernel::Kernel;

/// For all that one machine does, far beyond what anything here takes. It boots in some six seconds, runs ten to thirty
/// times slower than this one, and shares it with the other tests.
const LIFE: Duration = Duration::from_secs(240);
/// Holds the initramfs, unpacked and as an image, and the agent with room to compile packs.
const MEMORY: &str = "1536M";

/// First process of the machine: mounts, then reads commands line by line and shows what came of each.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/ TERM=dumb LC_ALL=C
mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
dmesg -n 1
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr
ifconfig lo 127.0.0.1 up

# begin WORD COMMAND…: starts a command in the background and returns when it says the word.
begin() {
  word=$1; shift; begun=$((begun + 1)); mkfifo /run/$begun
  "$@" >/run/$begun 2>&1 </dev/null &
  exec 3</run/$begun
  while read -r said <&3; do
    echo "$said"
    case $said in *"$word"*) cat <&3 >/run/$begun.log & exec 3<&-; return 0 ;; esac
  done
  exec 3<&-; return 1
}

echo @ready
while read -r line; do
  eval "$line" >/run/out 2>/run/err </dev/null
  echo "@code $?"
  base64 /run/out
  echo @err
  base64 /run/err
  echo @end
done
"#;

/// What a machine is made of, once all of it was found.
#[derive(Debug)]
pub struct Parts {
    qemu: PathBuf,
    busybox: PathBuf,
    kernel: Kernel,
}

impl Parts {
    /// Finds the programs and a kernel that has these modules; the kernel is fetched once and kept.
    pub fn find(modules: &[&str]) -> Result<Self, Missing> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err(Missing("the virtual machine carries this machine's binaries, and is an x86-64 Linux".into()));
        }
        let qemu = tools::find("qemu-system-x86_64", "qemu-system-x86")?;
        let busybox = tools::find("busybox", "busybox-static")?;
        Ok(Parts { qemu, busybox, kernel: Kernel::find(modules)? })
    }
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    deadline: Instant,
    modules: BTreeMap<String, String>,
    _image: tempfile::TempDir,
}

impl Machine {
    /// Boots with these programs in `/bin`, stripped and with their libraries.
    pub fn boot(parts: &Parts, programs: &[PathBuf]) -> Result<Self> {
        let mut tree = Initramfs::default();
        tree.executable("init", INIT.as_bytes());
        tree.program(&parts.busybox, false)?;
        for applet in
            ["sh", "base64", "cat", "dmesg", "ifconfig", "insmod", "ls", "mkdir", "mkfifo", "mount", "poweroff", "sed", "stty", "uname"]
        {
            tree.link(&format!("bin/{applet}"), "busybox");
        }
        for program in programs {
            tree.program(program, true)?;
        }
        let mut modules = BTreeMap::new();
        for (at, (name, bytes)) in parts.kernel.modules()?.into_iter().enumerate() {
            let path = format!("modules/{at:02}-{name}.ko");
            tree.file(&path, &bytes);
            modules.insert(name, path);
        }
        let image = tempfile::tempdir()?;
        let initrd = image.path().join("initrd");
        std::fs::write(&initrd, tree.image())?;
        let mut qemu = Command::new(&parts.qemu);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        qemu.arg("-kernel").arg(&parts.kernel.image).arg("-initrd").arg(&initrd);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
        let process = Process::start(qemu)?;
        let mut machine = Machine { process, deadline: Instant::now() + LIFE, modules, _image: image };
        machine.until("@ready").context("the virtual machine does not boot")?;
        Ok(machine)
    }

    /// Loads one of the kernel's modules after those it needs; `options` are for the one named.
    pub fn load(&mut self, module: &str, options: &str) -> Result<()> {
        let wanted = self.modules.get(module).with_context(|| format!("no module `{module}` was packed"))?.clone();
        // The paths are in loading order, so all that sort before it are what it may need.
        let mut paths: Vec<String> = self.modules.values().filter(|path| **path < wanted).cloned().collect();
        paths.sort();
        for path in paths {
            // Already there when another module was loaded before.
            self.run(&format!("insmod /{path} 2>/run/insmod || grep -q exists /run/insmod"))?;
        }
        self.run(&format!("insmod /{wanted} {options}"))?.ok().with_context(|| format!("load `{module}`"))?;
        Ok(())
    }

    /// Runs one line of shell.
    pub fn run(&mut self, line: &str) -> Result<Ran> {
        ensure!(!line.contains('\n'), "one line at a time: {line}");
        self.process.say(line)?;
        let code = self.until("@code ").with_context(|| format!("in `{line}`"))?;
        let code = code.trim_start_matches("@code ").parse().with_context(|| format!("the status of `{line}`"))?;
        let bytes = self.base64("@err")?;
        let err = self.base64("@end")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { code, stdout: text(&bytes), stderr: text(&err), bytes })
    }

    /// Starts a command that stays, and returns what it said up to the line with this word.
    pub fn begin(&mut self, word: &str, line: &str) -> Result<Ran> {
        self.run(&format!("begin '{word}' {line}"))?.ok().with_context(|| format!("`{line}` never said `{word}`"))
    }

    /// Turns it off and waits for its end.
    pub fn off(mut self) -> Result<()> {
        self.process.say("poweroff -f")?;
        let (status, said) = self.process.finish()?;
        ensure!(status.success(), "the virtual machine ended with {status}: {said:?}");
        Ok(())
    }

    fn until(&mut self, mark: &str) -> Result<String> {
        loop {
            let line = self.line()?;
            if line.starts_with(mark) {
                return Ok(line);
            }
        }
    }

    fn base64(&mut self, mark: &str) -> Result<Vec<u8>> {
        let mut text = String::new();
        loop {
            let line = self.line()?;
            if line == mark {
                return STANDARD.decode(&text).with_context(|| format!("not base64: {text}"));
            }
            text.push_str(&line);
        }
    }

    fn line(&mut self) -> Result<String> {
        let line = if Instant::now() < self.deadline { self.process.next_line() } else { None };
        match line {
            Some(line) => Ok(line.text().trim_end_matches('\r').to_owned()),
            None => bail!("the virtual machine fell silent or took over {} s; it said:\n{}", LIFE.as_secs(), self.process.transcript()),
        }
    }
}
