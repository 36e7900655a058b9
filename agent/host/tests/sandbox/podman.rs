//! A real Podman with a store of its own, in a temporary folder, that answers at a socket there; and an image made of busybox.
//!
//! It needs Debian's podman, runc, conmon and busybox-static, and root. A test without them is skipped, loudly; where
//! `OUTHAUL_REQUIRE_TOOLS` is set it fails instead.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};

/// The image.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:1";
/// Where files lie that say which devices there are; this one is empty after a restart.
const CDI: &str = "/run/cdi";
/// The programs in it.
const PROGRAMS: [&str; 15] =
    ["sh", "true", "cat", "sleep", "echo", "ls", "id", "env", "head", "yes", "mkdir", "touch", "grep", "wc", "chown"];
/// What its containers need on machines with small limits.
const CONF: &str = "[containers]\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=1000:1000\"]\n";
const ENGINE: &str = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

pub(crate) struct Podman {
    folder: tempfile::TempDir,
    service: Child,
}

impl Podman {
    /// Starts one; none where this machine lacks what it needs. `more` stands in its file of settings, among those for containers.
    pub(crate) fn start(test: &str, more: &str) -> Option<Self> {
        if let Some(missing) = missing() {
            assert!(std::env::var_os("OUTHAUL_REQUIRE_TOOLS").is_none(), "{test} cannot run: {missing}");
            // To the stream itself: what `eprintln!` says is kept back when a test passes.
            writeln!(std::io::stderr(), "\n*** SKIPPED: {test}\n*** because {missing}\n").expect("stderr");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("containers.conf"), format!("{CONF}{more}\n{ENGINE}")).expect("written");
        import(folder.path());
        let mut service = command(folder.path());
        service.args(["--log-level", "info", "system", "service", "--time", "0"]);
        service.arg(format!("unix://{}", folder.path().join("sock").display()));
        let mut service = service.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("podman");
        let mut log = BufReader::new(service.stderr.take().expect("piped")).lines();
        let listening = log.by_ref().map_while(Result::ok).any(|line| line.contains("API service listening"));
        assert!(listening, "podman ended before it listened");
        // Read to its end, so that it never waits for us.
        std::thread::spawn(move || log.for_each(drop));
        let podman = Podman { folder, service };
        podman.offer_gpus();
        Some(podman)
    }

    /// Where it answers.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// The GPUs that it can hand over: names without a device behind them, which set a variable.
    pub(crate) fn gpus(&self) -> Vec<String> {
        let name = self.folder.path().file_name().and_then(|name| name.to_str()).expect("a name").replace('.', "");
        [1, 2].map(|number| format!("GPU-{name}-{number}")).into()
    }

    /// Writes them down where container runtimes look for devices.
    fn offer_gpus(&self) {
        let devices: Vec<Json> =
            self.gpus().into_iter().map(|uuid| json!({"name": uuid, "containerEdits": {"env": [format!("LENT={uuid}")]}})).collect();
        std::fs::create_dir_all(CDI).expect("made");
        let text = json!({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}).to_string();
        std::fs::write(self.offered(), text).expect("written");
    }

    fn offered(&self) -> PathBuf {
        Path::new(CDI).join(format!("outhaul-{}.json", self.gpus()[0]))
    }

    /// Ends the processes that watch programs run in containers: they would stay for five minutes, and then make the folder again.
    fn end_monitors(&self) {
        let folder = self.folder.path().display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            if words.contains("conmon\0") && words.contains(&folder) {
                let _ = Command::new("kill").arg("-KILL").arg(entry.file_name()).output();
            }
        }
    }

    /// A folder beside its store.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the owner of the machine types.
    pub(crate) fn podman(&self, words: &[&str]) -> String {
        let output = command(self.folder.path()).args(words).output().expect("podman");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What it tells of a container.
    pub(crate) fn inspect(&self, id: &str) -> Json {
        let told: Json = serde_json::from_str(&self.podman(&["inspect", id])).expect("JSON");
        told[0].clone()
    }

    /// Containers that are there.
    pub(crate) fn count(&self) -> usize {
        self.podman(&["ps", "--all", "--quiet"]).lines().count()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = command(self.folder.path()).args(["rm", "--all", "--force", "--time", "0"]).output();
        let _ = std::fs::remove_file(self.offered());
        let _ = self.service.kill();
        let _ = self.service.wait();
        self.end_monitors();
    }
}

fn missing() -> Option<String> {
    for (file, package) in [("podman", "podman"), ("runc", "runc"), ("conmon", "conmon"), ("busybox", "busybox-static"), ("tar", "tar")] {
        if find(file).is_none() {
            return Some(format!("`{file}` is not installed (Debian's package {package})"));
        }
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    (!root).then(|| "only root has a container runtime of its own without further ado".into())
}

fn find(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(find("podman").expect("there"));
    command.env("CONTAINERS_CONF", folder.join("containers.conf")).env_remove("XDG_RUNTIME_DIR").env_remove("CONTAINER_HOST");
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
    command
}

/// Busybox as an image.
fn import(folder: &Path) {
    let image = folder.join("image");
    let bin = image.join("bin");
    std::fs::create_dir_all(&bin).expect("made");
    std::fs::create_dir_all(image.join("tmp")).expect("made");
    std::fs::copy(find("busybox").expect("there"), bin.join("busybox")).expect("copied");
    for program in PROGRAMS {
        symlink("busybox", bin.join(program)).expect("linked");
    }
    let archive = folder.join("image.tar");
    let packed = Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).arg(".").status().expect("tar");
    assert!(packed.success());
    let imported = command(folder).arg("import").arg("--change").arg("CMD [\"sh\"]").arg(&archive).arg(IMAGE).output().expect("podman");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    std::fs::remove_file(archive).expect("removed");
}
