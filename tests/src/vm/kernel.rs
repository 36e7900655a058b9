//! Debian's kernel for the virtual machine: its package is fetched once by `apt-get download`, unpacked and never
//! installed; the image and the wanted modules are kept beside the built binaries, the rest is thrown away.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

use crate::process::binaries;
use crate::tools::{self, Missing};

/// The package that depends on the present kernel.
const META: &str = "linux-image-amd64";
/// Lists the kept modules in loading order; written last, so that what has it is whole.
const ORDER: &str = "order";

/// A kernel and the modules that were asked for.
#[derive(Debug)]
pub struct Kernel {
    /// what qemu boots
    pub image: PathBuf,
    folder: PathBuf,
}

impl Kernel {
    /// The kept kernel, or the one of this machine's package archive.
    pub fn find(modules: &[&str]) -> Result<Self, Missing> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let cache = binaries().map_err(|error| Missing(format!("{error:#}")))?.join("vm").join(modules.join("-"));
        let kernel = Kernel { image: cache.join("vmlinuz"), folder: cache.clone() };
        if cache.join(ORDER).exists() {
            return Ok(kernel);
        }
        for (program, package) in [("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg"), ("depmod", "kmod")] {
            tools::find(program, package)?;
        }
        fetch(modules, &cache).map_err(|error| Missing(format!("there is no kernel for a virtual machine: {error:#}")))?;
        Ok(kernel)
    }

    /// The modules with their names, each after those it needs.
    pub fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let order = std::fs::read_to_string(self.folder.join(ORDER))?;
        order.lines().map(|name| Ok((name.to_owned(), std::fs::read(self.folder.join(name))?))).collect()
    }
}

fn fetch(modules: &[&str], cache: &Path) -> Result<()> {
    std::fs::create_dir_all(cache)?;
    let work = tempfile::tempdir_in(cache)?;
    let package = package()?;
    run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(work.path()))?;
    let deb = only(work.path(), |name| name.ends_with(".deb"))?;
    let root = work.path().join("root");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let release = only(&root.join("lib/modules"), |_| true)?;
    let name = release.file_name().and_then(|name| name.to_str()).context("a kernel has a release")?;
    run(Command::new(tools::find("depmod", "kmod")?).arg("-b").arg(&root).arg(name))?;
    let dependencies = std::fs::read_to_string(release.join("modules.dep"))?;
    let mut order = Vec::new();
    for module in modules {
        for path in loading_order(&dependencies, module).with_context(|| format!("kernel {name} has no module `{module}`"))? {
            let name = stem(path).to_owned();
            if !order.contains(&name) {
                std::fs::write(cache.join(&name), plain(&release.join(path))?)?;
                order.push(name);
            }
        }
    }
    std::fs::copy(only(&root.join("boot"), |name| name.starts_with("vmlinuz"))?, cache.join("vmlinuz"))?;
    Ok(std::fs::write(cache.join(ORDER), order.join("\n"))?)
}

/// The name of the present kernel's package.
fn package() -> Result<String> {
    let said = run(Command::new("apt-cache").args(["depends", META]))?;
    dependency(&said).map(Into::into).with_context(|| format!("`apt-cache depends {META}` names no kernel:\n{said}"))
}

fn dependency(apt_cache: &str) -> Option<&str> {
    let names = apt_cache.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.into_iter().find(|name| name.starts_with("linux-image-"))
}

/// Paths of a module and those it needs, first the one that needs none. A line of `modules.dep` lists them the other way.
fn loading_order<'a>(modules_dep: &'a str, module: &str) -> Option<Vec<&'a str>> {
    let lines = modules_dep.lines().filter_map(|line| line.split_once(':'));
    let (path, needs) = lines.into_iter().find(|(path, _)| stem(path) == module.replace('_', "-") || stem(path) == module)?;
    Some(needs.split_whitespace().rev().chain([path]).collect())
}

/// `videodev` of `kernel/…/videodev.ko.xz`.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name)
}

/// A module's bytes, unpacked: busybox's `insmod` knows no compression.
fn plain(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return Ok(std::fs::read(path)?),
    };
    let output = Command::new(program).arg("-dc").arg(path).output().with_context(|| format!("run `{program}`"))?;
    ensure!(output.status.success(), "`{program}` cannot unpack `{}`", path.display());
    Ok(output.stdout)
}

/// The one entry of a folder that fits.
fn only(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))?;
    let mut fitting = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&fits));
    fitting.next().with_context(|| format!("`{}` lacks a file that the kernel's package should have brought", folder.display()))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_loads_after_those_it_needs() {
        let text = "kernel/a/mc.ko.xz:\nkernel/a/videodev.ko.xz: kernel/a/mc.ko.xz\nkernel/b/vivid.ko.xz: kernel/a/videodev.ko.xz kernel/a/mc.ko.xz\n";
        let order = loading_order(text, "vivid").expect("is there");
        assert_eq!(order.into_iter().map(stem).collect::<Vec<_>>(), ["mc", "videodev", "vivid"]);
        assert_eq!(loading_order(text, "absent"), None);
    }

    #[test]
    fn the_kernels_package_is_the_meta_packages_dependency() {
        let said = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Conflicts: linux-image-amd64-signed-template\n";
        assert_eq!(dependency(said), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(dependency("linux-image-amd64\n"), None);
    }
}
