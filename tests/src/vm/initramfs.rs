//! The files of a virtual machine, as the archive that its kernel unpacks at boot: cpio in its "newc" form, which the
//! kernel's `initramfs-buffer-format` document describes. Written here, so that it takes no tool and no root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// Files by path, without the leading slash.
#[derive(Debug, Default)]
pub struct Initramfs {
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Initramfs {
    /// Adds a plain file.
    pub fn file(&mut self, path: &str, bytes: &[u8]) {
        self.add(path, FILE, bytes);
    }

    /// Adds a file that may be run.
    pub fn executable(&mut self, path: &str, bytes: &[u8]) {
        self.add(path, EXECUTABLE, bytes);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.add(path, LINK, to.as_bytes());
    }

    /// Adds a program of this machine to `bin`, and its shared libraries where its loader looks for them.
    pub fn program(&mut self, program: &Path, strip: bool) -> Result<()> {
        let name = program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
        let bytes = if strip { stripped(program)? } else { std::fs::read(program)? };
        self.executable(&format!("bin/{name}"), &bytes);
        for library in libraries(program)? {
            let bytes = std::fs::read(&library).with_context(|| format!("read `{}`", library.display()))?;
            let path = library.to_str().context("a library's path is text")?;
            self.executable(path.trim_start_matches('/'), &bytes);
        }
        Ok(())
    }

    fn add(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        for (at, _) in path.match_indices('/') {
            // Sorted order puts a folder before what is in it, as the kernel wants it.
            self.entries.entry(path[..at].to_owned()).or_insert((DIRECTORY, Vec::new()));
        }
        self.entries.insert(path.to_owned(), (mode, bytes.to_owned()));
    }

    /// The archive.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut image = Vec::new();
        for (inode, (path, (mode, bytes))) in (1..).zip(&self.entries) {
            record(&mut image, inode, *mode, path, bytes);
        }
        record(&mut image, 0, 0, "TRAILER!!!", &[]);
        image
    }
}

/// Thirteen numbers of eight hex digits after the magic, then the name with its zero, then the bytes; both padded to four.
fn record(image: &mut Vec<u8>, inode: u32, mode: u32, path: &str, bytes: &[u8]) {
    let (length, name) = (bytes.len() as u32, path.len() as u32 + 1);
    image.extend_from_slice(b"070701");
    for number in [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name, 0] {
        image.extend_from_slice(format!("{number:08x}").as_bytes());
    }
    image.extend_from_slice(path.as_bytes());
    image.push(0);
    pad(image);
    image.extend_from_slice(bytes);
    pad(image);
}

fn pad(image: &mut Vec<u8>) {
    image.resize(image.len().next_multiple_of(4), 0);
}

/// A copy without symbols: a debug build is seven times what it needs to be, and the machine's disk is its memory.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let copy = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip").arg("-o").arg(copy.path()).arg(program).status();
    match status {
        Ok(status) if status.success() => Ok(std::fs::read(copy.path())?),
        // The machine is only fuller without it.
        _ => Ok(std::fs::read(program)?),
    }
}

/// The shared libraries of a program and their loader; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("run `ldd`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!text.contains("not found"), "`{}` lacks a library:\n{text}", program.display());
    Ok(library_paths(&text))
}

/// `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld.so.2 (0x…)`; the kernel's own page has no path.
fn library_paths(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_after_its_folders_and_all_is_padded_to_four() {
        let mut tree = Initramfs::default();
        tree.file("etc/motd", b"hello");
        tree.link("etc/issue", "motd");
        let image = tree.image();
        let text = String::from_utf8_lossy(&image);
        let at = |wanted: &str| text.find(wanted).unwrap_or_else(|| panic!("no {wanted}"));
        assert!(at("etc\0") < at("etc/issue\0") && at("etc/issue\0") < at("etc/motd\0") && at("etc/motd\0") < at("TRAILER!!!\0"));
        assert_eq!(image.len() % 4, 0);
        assert_eq!(text.match_indices("070701").filter(|(at, _)| at % 4 == 0).count(), 4);
        // 110 bytes of numbers, the name with its zero, then padding to four.
        assert_eq!(at("hello"), (at("etc/motd\0") + "etc/motd\0".len()).next_multiple_of(4));
        assert_eq!(&text[at("etc/motd\0") - 110..at("etc/motd\0") - 110 + 22], "0707010000000300008 1a4".replace(' ', ""));
    }

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let ldd = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(library_paths(ldd), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert!(library_paths("\tstatically linked\n").is_empty());
    }
}
