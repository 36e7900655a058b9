//! `containers` against a real Podman: what runs, what it can see, whose it is, and what no pack can make of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use outhaul_host::power::containers::{Config, Gpus, Grant};
use outhaul_host::{Grants, Host, HostConfig, Lane, Output, Pack, Power};
use outhaul_protocol::error::Code;
use serde_json::{Value as Json, json};

use crate::podman::{IMAGE, Podman};
use crate::support::{Caller, Ended, config, wasm};

/// A pack, the grant it calls with, and the runtime its containers are in.
struct Bench {
    podman: Podman,
    pack: Arc<Pack>,
    grant: Json,
}

/// A grant that is enough for most.
fn usual() -> Json {
    json!({"images": ["busybox:*"], "memory_mib": 64, "max": 3})
}

/// The GPUs of a machine that has some.
#[derive(Debug)]
struct Machine(Vec<String>);

impl Gpus for Machine {
    fn uuids(&self) -> Result<Vec<String>, String> {
        Ok(self.0.clone())
    }
}

async fn loaded(podman: &Podman, node: &str, key: u8) -> Arc<Pack> {
    let gpus = Arc::new(Machine(podman.gpus()));
    let containers = Config { socket: Some(podman.socket()), node: node.into(), gpus };
    let host = Host::new(HostConfig { containers, cache_key: [key; 32], ..config() }).expect("a host");
    host.tend_containers();
    host.load(wasm("containers")).await.expect("loads")
}

impl Bench {
    async fn with(test: &str, conf: &str, grant: Json) -> Option<Self> {
        let podman = Podman::start(test, conf)?;
        let pack = loaded(&podman, "node-1", 7).await;
        Some(Bench { podman, pack, grant })
    }

    async fn new(test: &str) -> Option<Self> {
        Bench::with(test, "", usual()).await
    }

    fn grants(&self, owner: &str) -> Arc<Grants> {
        let grant: Grant = serde_json::from_value(self.grant.clone()).expect("a grant");
        let containers = Some(Arc::new(Grant { owner: owner.into(), ..grant }));
        Arc::new(Grants { containers, ..Grants::default() })
    }

    fn caller(&self, command: &str, params: Json) -> Caller {
        Caller::new(&self.pack, &format!("work.{command}"), params, 4).with(|request| request.grants = self.grants("name-a"))
    }

    async fn call(&self, command: &str, params: Json) -> Ended {
        self.caller(command, params).run().await
    }

    /// The same as another pack.
    async fn other(&self, command: &str, params: Json) -> Ended {
        self.caller(command, params).with(|request| request.grants = self.grants("name-b")).run().await
    }

    /// Runs a container that must run; what the pack is told of it.
    async fn run(&self, spec: Json) -> Json {
        told(&self.call("run", json!({"spec": spec})).await)
    }

    /// Runs one to its end; its status, what it said and what it complained of.
    async fn result(&self, spec: Json) -> (Json, String, String) {
        let id = self.run(spec).await["id"].clone();
        let code = told(&self.call("wait", json!({"id": id})).await);
        let log = told(&self.call("log", json!({"id": id, "follow": false})).await);
        let text = |key: &str| log[key].as_str().expect("text").to_owned();
        (code, text("stdout"), text("stderr"))
    }
}

fn told(ended: &Ended) -> Json {
    ended.result.as_ref().unwrap_or_else(|failure| panic!("{failure:?}")).to_json(None)
}

/// The least that a pack can say about a container.
fn spec(words: &[&str], more: Json) -> Json {
    let mut spec = json!({"image": IMAGE, "command": words, "env": [], "mounts": [], "gpus": "none", "remove": false});
    for (key, value) in more.as_object().expect("a map") {
        spec[key] = value.clone();
    }
    spec
}

fn says(ended: &Ended, code: Code, words: &str) {
    assert_eq!(ended.code(), code, "{:?}", ended.result);
    assert!(ended.failure().message.contains(words), "`{words}` is not in `{}`", ended.failure().message);
}

#[tokio::test]
async fn a_container_runs_ends_and_is_removed() {
    let Some(bench) = Bench::new("a container runs, ends and is removed").await else { return };
    assert_eq!(bench.pack.powers(), [Power::Output, Power::Containers]);
    let container = bench.run(spec(&["sh", "-c", "echo out; echo err >&2; exit 3"], json!({"name": "one", "env": [["A", "b"]]}))).await;
    assert_eq!((&container["name"], &container["image"], &container["state"]), (&json!("one"), &json!(IMAGE), &json!("running")));
    assert_eq!(told(&bench.call("wait", json!({"id": "one"})).await), json!(3));
    let log = told(&bench.call("log", json!({"id": "one", "follow": true})).await);
    assert_eq!(log, json!({"code": null, "stdout": "out\n", "stderr": "err\n"}));
    let one = told(&bench.call("one", json!({"id": container["id"]})).await);
    assert_eq!((&one["state"], &one["exit_code"], &one["created"]), (&json!("ended"), &json!(3), &container["created"]));
    assert_eq!(told(&bench.call("all", json!({})).await), json!([one]));
    let again = bench.call("run", json!({"spec": spec(&["true"], json!({"name": "one"}))})).await;
    says(&again, Code::CommandFailed, "conflict: the pack has a container `one` already");
    let images = told(&bench.call("images", json!({})).await);
    assert_eq!((images.as_array().map(Vec::len), &images[0]["reference"]), (Some(2), &json!(IMAGE)), "by its tag, and by its digest");
    assert!(bench.call("remove", json!({"id": "one"})).await.result.is_ok());
    says(&bench.call("one", json!({"id": "one"})).await, Code::CommandFailed, "not_found: the pack has no container `one`");
    assert_eq!(bench.podman.count(), 0);
}

#[tokio::test]
async fn programs_run_beside_a_containers_own_and_get_what_the_caller_sends() {
    let Some(bench) = Bench::new("programs run in containers").await else { return };
    bench.run(spec(&["sleep", "1000"], json!({"name": "w"}))).await;
    let program = json!({"argv": ["sh", "-c", "cat; echo $X >&2; exit 4"], "env": [["X", "y"]]});
    let Caller { request, mut outputs, input, pack } = bench.caller("exec", json!({"id": "w", "program": program}));
    let send = async move { input.send("from afar".into()).await.expect("room") };
    let take = async { while outputs.recv().await.is_some() {} };
    let (result, (), ()) = tokio::join!(pack.call(request), send, take);
    assert_eq!(result.expect("ran").to_json(None), json!({"code": 4, "stdout": "from afar", "stderr": "y\n"}));
    let usage = told(&bench.call("load", json!({"id": "w"})).await);
    assert!(usage["memory_used"].as_u64().is_some_and(|bytes| bytes > 0 && bytes < 64 << 20), "{usage}");
    let (before, stopped) = (std::time::Instant::now(), bench.call("stop", json!({"id": "w", "grace": 0})).await);
    assert!(stopped.result.is_ok() && before.elapsed() < Duration::from_secs(30));
    assert_eq!(told(&bench.call("one", json!({"id": "w"})).await)["state"], json!("ended"));
    for workdir in ["x", "/proc/self/fd/8", "/./proc/1/cwd", "/dev/fd/8", "/x/../proc", "/a\0b", &format!("/{}", "a".repeat(5_000))] {
        let ended = bench.call("exec", json!({"id": "w", "program": {"argv": ["true"], "env": [], "workdir": workdir}})).await;
        says(&ended, Code::CommandFailed, "failed: nothing can start in");
    }
    let dead = bench.call("exec", json!({"id": "w", "program": {"argv": ["true"], "env": []}})).await;
    assert_eq!(dead.code(), Code::CommandFailed);
}

#[tokio::test]
async fn nothing_of_the_machine_is_in_a_container() {
    let Some(bench) = Bench::new("nothing of the machine is in a container").await else { return };
    let look = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /sys/class/net; echo $NVIDIA_VISIBLE_DEVICES; echo x > /proc/sys/kernel/hostname";
    let container = bench.run(spec(&["sh", "-c", look], json!({"name": "x", "shm_mib": 8, "cpus": 0.5}))).await;
    assert!(bench.call("wait", json!({"id": "x"})).await.result.is_ok());
    let log = told(&bench.call("log", json!({"id": "x", "follow": false})).await);
    let none = "0000000000000000";
    assert_eq!(log["stdout"], json!(format!("CapEff:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\nlo\nvoid\n")));
    assert!(log["stderr"].as_str().is_some_and(|text| text.contains("ead-only")), "{log}");
    let told = bench.podman.inspect(container["id"].as_str().expect("an id"));
    let host = &told["HostConfig"];
    assert_eq!(
        (&host["Privileged"], &host["NetworkMode"], &host["Devices"], &host["CapAdd"]),
        (&json!(false), &json!("none"), &json!([]), &json!([]))
    );
    assert_eq!(
        (&host["Memory"], &host["MemorySwap"], &host["PidsLimit"], &host["ShmSize"]),
        (&json!(64 << 20), &json!(64 << 20), &json!(4096), &json!(8 << 20))
    );
    assert_eq!(
        (&host["NanoCpus"], &host["SecurityOpt"], &host["RestartPolicy"]["Name"]),
        (&json!(500_000_000), &json!(["no-new-privileges"]), &json!("no"))
    );
    assert_eq!(told["Mounts"], json!([]));
}

#[tokio::test]
async fn mounts_are_what_was_granted_and_links_lead_nowhere_else() {
    let Some(mut bench) = Bench::new("mounts are what was granted").await else { return };
    let folder = std::fs::canonicalize(bench.podman.folder()).expect("there");
    let path = |name: &str| folder.join(name).display().to_string();
    for name in ["data/deep", "out/deep", "secret"] {
        std::fs::create_dir_all(folder.join(name)).expect("made");
    }
    std::fs::write(folder.join("data/a"), "of the machine").expect("written");
    for (to, link) in [("secret", "data/link"), ("sock", "data/socket"), ("root", "data/store"), ("data/deep", "data/inside")] {
        std::os::unix::fs::symlink(folder.join(to), folder.join(link)).expect("linked");
    }
    bench.grant["mounts"] = json!([format!("{}:r", path("data")), format!("{}:w", path("out")), format!("{}:r", path("root"))]);
    let mount = |source: &str, target: &str, writable: bool| json!({"source": source, "target": target, "writable": writable});
    let try_ = |mounts: Json| spec(&["sh", "-c", "cat /d/a; touch /d/b /o/c; ls /o"], json!({"mounts": mounts}));
    let both = json!([mount(&path("data"), "/d", false), mount(&path("out"), "/o", true)]);
    let (_, stdout, stderr) = bench.result(try_(both)).await;
    assert_eq!(stdout, "of the machinec\ndeep\n");
    assert!(stderr.contains("/d/b") && !folder.join("data/b").exists() && folder.join("out/c").exists(), "{stderr}");
    let inside = json!([mount(&path("data/inside"), "/d", false)]);
    assert!(bench.call("run", json!({"spec": try_(inside)})).await.result.is_ok(), "a link within is as good as where it leads");
    let denied = [
        (path("secret"), false),
        (path("data"), true),
        (path("data/link"), false),
        (path("data/socket"), false),
        (path("data/store"), false),
        (path("root"), false),
        (path("data/../secret"), false),
        (path("out/deep"), true),
        (folder.display().to_string(), false),
        ("/".into(), false),
        ("/run".into(), false),
        ("/run/docker.sock".into(), false),
        ("/proc/1/root".into(), false),
        ("/dev".into(), true),
        ("/dev/null".into(), true),
    ];
    for (source, writable) in denied {
        let ended = bench.call("run", json!({"spec": try_(json!([mount(&source, "/d", writable)]))})).await;
        assert_eq!(ended.code(), Code::Denied, "{source}: {:?}", ended.result);
    }
    let hint = bench.call("run", json!({"spec": try_(json!([mount(&path("data"), "/d", true)]))})).await;
    assert!(
        hint.failure().message.ends_with(&format!("agent allow containers containers --mount {}:w", path("data"))),
        "{}",
        hint.failure().message
    );
    for target in ["d", "/", "/d/../..", "/proc/x", "/d:/e", "/d,rw", "/dev/shm"] {
        let ended = bench.call("run", json!({"spec": try_(json!([mount(&path("data"), target, false)]))})).await;
        says(&ended, Code::CommandFailed, "failed: nothing can be mounted at");
    }
}

/// A file system of its own, until this is dropped.
struct Below(PathBuf);

impl Below {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).expect("made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "below"]).arg(&path).status().expect("mount");
        assert!(mounted.success());
        Below(path)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn what_is_mounted_below_a_folder_does_not_come_along() {
    let Some(mut bench) = Bench::new("what is mounted below a folder does not come along").await else { return };
    let folder = std::fs::canonicalize(bench.podman.folder()).expect("there").join("seen");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("a"), "plain").expect("written");
    let below = Below::mount(folder.join("below"));
    std::fs::write(below.0.join("secret"), "of another").expect("written");
    bench.grant["mounts"] = json!([format!("{}:r", folder.display())]);
    let mounts = json!([{"source": folder, "target": "/d", "writable": false}]);
    let look = "cat /d/a; ls /d/below; touch /d/below/x";
    let (code, stdout, _) = bench.result(spec(&["sh", "-c", look], json!({"mounts": mounts}))).await;
    assert_eq!((code, stdout.as_str()), (json!(1), "plain"));
    assert!(!below.0.join("x").exists());
}

#[tokio::test]
async fn a_runtime_that_makes_more_of_a_container_than_was_asked_is_seen_before_it_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let mark = dir.path().join("ran");
    let shared = format!("volumes = [\"{}:/shared\"]", dir.path().display());
    for (conf, word) in [
        (shared.as_str(), "is mounted at `/shared`"),
        ("pidns = \"host\"", "its process ids are `host`"),
        ("utsns = \"host\"", "host name are `host`"),
        ("devices = [\"/dev/zero\"]", "it has device"),
    ] {
        let Some(bench) = Bench::with("a runtime that makes more of a container", conf, usual()).await else { return };
        let ended = bench.call("run", json!({"spec": spec(&["touch", "/shared/ran"], json!({}))})).await;
        says(&ended, Code::Denied, word);
        assert_eq!(bench.podman.count(), 0, "it stays");
        assert!(!Path::new(&mark).exists(), "it ran");
    }
}

#[tokio::test]
async fn only_granted_images_run() {
    let Some(bench) = Bench::with("only granted images run", "", json!({"images": ["busybox:2"], "memory_mib": 64})).await else { return };
    let digest = bench.podman.inspect(IMAGE)["RepoDigests"][0]
        .as_str()
        .and_then(|name| name.split_once('@'))
        .map(|(_, digest)| digest.to_owned())
        .expect("one");
    let id = bench.podman.inspect(IMAGE)["Id"].as_str().expect("an id").to_owned();
    for image in [
        IMAGE.to_owned(),
        "busybox".into(),
        format!("busybox@{digest}"),
        format!("busybox:2@{digest}"),
        id.clone(),
        id[..12].to_owned(),
        "evil/busybox:2".into(),
    ] {
        let ended = bench.call("run", json!({"spec": spec(&["true"], json!({"image": image}))})).await;
        let code = if ended.failure().message.contains("is not an image") { Code::CommandFailed } else { Code::Denied };
        assert_eq!(ended.code(), code, "{image}: {:?}", ended.result);
    }
    let hint = bench.call("run", json!({"spec": spec(&["true"], json!({}))})).await;
    assert!(hint.failure().message.ends_with(&format!("agent allow containers containers {IMAGE}")), "{}", hint.failure().message);
    let missing = bench.call("run", json!({"spec": spec(&["true"], json!({"image": "busybox:2"}))})).await;
    says(&missing, Code::CommandFailed, "not_found: image `docker.io/library/busybox:2` is not on this machine");
    assert_eq!(bench.podman.count(), 0);
}

#[tokio::test]
async fn a_container_is_its_packs_whatever_word_another_tries() {
    let Some(bench) = Bench::new("a container is its pack's").await else { return };
    let id = bench.run(spec(&["sleep", "1000"], json!({"name": "mine"}))).await["id"].as_str().expect("an id").to_owned();
    let known = bench.podman.inspect(&id)["Name"].as_str().expect("a name").to_owned();
    // The owner's own, of an image whose labels say that it is the pack's; and one with every label of ours copied.
    let labels = bench.podman.inspect(&id)["Config"]["Labels"].clone();
    let labels: Vec<String> = labels
        .as_object()
        .expect("labels")
        .iter()
        .map(|(key, value)| format!("--label={key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let mut words = vec!["run", "--detach", "--network=none", "--name=foreign"];
    words.extend(labels.iter().map(String::as_str));
    words.extend([IMAGE, "sleep", "1000"]);
    let foreign = bench.podman.podman(&words);
    for word in [id.as_str(), &id[..12], "mine", &known, &format!("/{known}"), "foreign", &foreign] {
        says(&bench.other("one", json!({"id": word})).await, Code::CommandFailed, "not_found: ");
        for (command, params) in [
            ("stop", json!({"id": word, "grace": 0})),
            ("remove", json!({"id": word})),
            ("wait", json!({"id": word})),
            ("load", json!({"id": word})),
            ("log", json!({"id": word, "follow": false})),
            ("exec", json!({"id": word, "program": {"argv": ["true"], "env": []}})),
        ] {
            says(&bench.other(command, params).await, Code::CommandFailed, "not_found: ");
        }
    }
    for word in ["foreign", &foreign, "../mine", "mine/../../../images/json", "", &known] {
        says(&bench.call("stop", json!({"id": word, "grace": 0})).await, Code::CommandFailed, "not_found: ");
    }
    assert_eq!(told(&bench.other("all", json!({})).await), json!([]));
    assert_eq!(told(&bench.call("all", json!({})).await).as_array().map(Vec::len), Some(1));
    // The same name is no conflict between packs, and says nothing of the other's.
    assert!(bench.other("run", json!({"spec": spec(&["true"], json!({"name": "mine"}))})).await.result.is_ok());
    // An agent that starts anew knows its own; one with another key, or of another node, does not.
    for (node, key, found) in [("node-1", 7, 1), ("node-1", 8, 0), ("node-2", 7, 0)] {
        let again =
            Bench { podman: Podman::start("again", "").expect("as before"), pack: loaded(&bench.podman, node, key).await, grant: usual() };
        assert_eq!(told(&again.call("all", json!({})).await).as_array().map(Vec::len), Some(found), "{node} {key}");
    }
    assert_eq!(bench.podman.podman(&["ps", "--quiet", "--filter", "name=foreign"]).lines().count(), 1, "the owner's own goes on");
}

#[tokio::test]
async fn labels_and_devices_cannot_be_asked_for_by_variables() {
    let Some(bench) = Bench::new("labels and devices cannot be asked for").await else { return };
    for name in ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_IMEX_CHANNELS"] {
        let ended = bench.call("run", json!({"spec": spec(&["true"], json!({"env": [[name, "all"]]}))})).await;
        says(&ended, Code::Denied, "GPUs are asked for with `gpus`");
    }
    for (key, value) in [("network", "host"), ("network", "container:x"), ("network", "ns:/proc/1/ns/net"), ("network", "bridge")] {
        let ended = bench.call("run", json!({"spec": spec(&["true"], json!({key: value}))})).await;
        assert_eq!(ended.code(), Code::Denied, "{value}");
    }
    for (key, value) in [
        ("name", json!("a b")),
        ("name", json!("--privileged")),
        ("name", json!("a/../b")),
        ("user", json!("0 --x")),
        ("workdir", json!("x")),
        ("workdir", json!("/proc/self/fd/8")),
        ("workdir", json!("//dev/fd/8")),
        ("workdir", json!("/tmp/../proc/self")),
        ("env", json!([["A=B", "c"]])),
        ("cpus", json!(-1.0)),
        ("cpus", json!(1e-10)),
        ("cpus", json!("NaN")),
        ("memory_mib", json!(0)),
    ] {
        let ended = bench.call("run", json!({"spec": spec(&["true"], json!({key: value}))})).await;
        says(&ended, Code::CommandFailed, "failed: ");
    }
    for (key, value) in [
        ("memory_mib", json!(65)),
        ("cpus", json!(1.5)),
        ("shm_mib", json!(65)),
        ("gpus", json!({"count": 1})),
        ("gpus", json!({"uuids": ["GPU-1"]})),
    ] {
        let ended = bench.call("run", json!({"spec": spec(&["true"], json!({key: value}))})).await;
        says(&ended, Code::Denied, "agent allow containers containers --");
    }
    assert_eq!(bench.podman.count(), 0);
}

#[tokio::test]
async fn as_many_run_as_policy_allows_and_no_longer() {
    let Some(mut bench) = Bench::new("as many run as policy allows").await else { return };
    bench.grant["max"] = json!(1);
    bench.run(spec(&["sleep", "1000"], json!({"name": "a"}))).await;
    let more = bench.call("run", json!({"spec": spec(&["true"], json!({}))})).await;
    says(&more, Code::CommandFailed, "limit: 1 containers of the pack are running");
    bench.grant["max_secs"] = json!(1);
    assert!(bench.call("remove", json!({"id": "a"})).await.result.is_ok());
    bench.run(spec(&["sh", "-c", "while true; do sleep 1; done"], json!({"name": "b"}))).await;
    assert_eq!(told(&bench.call("wait", json!({"id": "b"})).await), json!(137), "its time is up");
}

#[tokio::test]
async fn a_time_outlives_the_agent_that_set_it() {
    let Some(mut bench) = Bench::new("a time outlives the agent that set it").await else { return };
    bench.grant["max_secs"] = json!(3);
    let orderly = "trap 'exit 5' TERM; while true; do sleep 1; done";
    bench.run(spec(&["sh", "-c", orderly], json!({"name": "t"}))).await;
    // The agent's next start; what the first one watched it watches no more.
    bench.pack = loaded(&bench.podman, "node-1", 7).await;
    assert_eq!(told(&bench.call("wait", json!({"id": "t"})).await), json!(5), "it was asked to end");
}

#[tokio::test]
async fn an_image_cannot_say_whose_its_containers_are() {
    let Some(mut bench) = Bench::new("an image cannot say whose its containers are").await else { return };
    let id = bench.run(spec(&["true"], json!({"name": "plain"}))).await["id"].as_str().expect("an id").to_owned();
    assert!(bench.call("wait", json!({"id": "plain"})).await.result.is_ok());
    let [first, _] = bench.podman.gpus().try_into().expect("two");
    let labels = ["outhaul.pack=name-b".to_owned(), "outhaul.node=x".into(), format!("outhaul.gpus={first}"), "outhaul.until=1".into()];
    let mut words = vec!["commit".to_owned(), "--quiet".into()];
    words.extend(labels.into_iter().flat_map(|label| ["--change".to_owned(), format!("LABEL {label}")]));
    words.extend([id, "docker.io/library/busybox:evil".into()]);
    bench.podman.podman(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let evil = bench.run(spec(&["sleep", "1000"], json!({"name": "evil", "image": "busybox:evil"}))).await;
    let told_labels = bench.podman.inspect(evil["id"].as_str().expect("an id"))["Config"]["Labels"].clone();
    let label = |name: &str| told_labels[format!("outhaul.{name}")].clone();
    assert_eq!((label("pack"), label("node"), label("gpus"), label("until")), (json!("name-a"), json!("node-1"), json!(""), json!("")));
    assert_eq!(told(&bench.other("all", json!({})).await), json!([]));
    // The GPU that the image claims is free.
    bench.grant["gpus"] = json!(1);
    let gpu = bench.run(spec(&["sleep", "1000"], json!({"gpus": {"uuids": [first]}}))).await;
    assert_eq!(gpu["gpus"], json!([first]));
}

#[tokio::test]
async fn a_gpu_is_one_containers_at_a_time() {
    let Some(mut bench) = Bench::new("a GPU is one container's at a time").await else { return };
    let [first, second] = bench.podman.gpus().try_into().expect("two");
    bench.grant["gpus"] = json!(2);
    let asks = |name: &str, gpus: Json| json!({"spec": spec(&["sh", "-c", "env; exec sleep 1000"], json!({"name": name, "gpus": gpus}))});
    let one = told(&bench.call("run", asks("one", json!({"count": 1}))).await);
    assert_eq!(one["gpus"], json!([first]));
    let taken = bench.other("run", asks("x", json!({"uuids": [first]}))).await;
    says(&taken, Code::CommandFailed, &format!("conflict: GPU `{first}` is taken by another's container"));
    says(
        &bench.other("run", asks("x", json!({"count": 2}))).await,
        Code::CommandFailed,
        "conflict: 2 GPUs are wanted, and this machine has 2, of which 1 are taken",
    );
    says(&bench.call("run", asks("x", json!({"uuids": ["GPU-none"]}))).await, Code::CommandFailed, "not_found: no GPU of this machine");
    // Another start of the agent, and another agent on the machine, know what is taken.
    bench.pack = loaded(&bench.podman, "node-2", 9).await;
    let two = told(&bench.other("run", asks("two", json!({"count": 1}))).await);
    assert_eq!(two["gpus"], json!([second]));
    says(&bench.other("run", asks("x", json!({"count": 1}))).await, Code::CommandFailed, "conflict: 1 GPUs are wanted");
    says(&bench.other("run", asks("x", json!({"count": 2}))).await, Code::CommandFailed, "limit: containers of the pack have 1 GPUs");
    // The container has the one it was lent, and no other, by whatever way the runtime hands them over.
    let env = bench.podman.podman(&["logs", two["id"].as_str().expect("an id")]);
    let has = |variable: &str| env.lines().any(|line| line == format!("{variable}={second}"));
    assert!(has("LENT") && has("NVIDIA_VISIBLE_DEVICES"), "{env}");
    assert!(!env.contains(&first), "{env}");
    // At its end it is free again.
    assert!(bench.other("stop", json!({"id": "two", "grace": 0})).await.result.is_ok());
    let three = told(&bench.call("run", asks("three", json!({"uuids": [second]}))).await);
    assert_eq!(three["gpus"], json!([second]));
    let told = bench.podman.inspect(three["id"].as_str().expect("an id"));
    let host = &told["HostConfig"];
    assert_eq!(
        (&host["Privileged"], &host["NetworkMode"], &host["Memory"], &host["PidsLimit"]),
        (&json!(false), &json!("none"), &json!(64 << 20), &json!(4096))
    );
    assert_eq!(
        (&host["SecurityOpt"], &host["CapAdd"], &host["NanoCpus"]),
        (&json!(["no-new-privileges"]), &json!([]), &json!(1_000_000_000))
    );
}

#[tokio::test]
async fn who_follows_a_log_leaves_it_and_the_container_goes_on() {
    let Some(bench) = Bench::new("who follows a log leaves it").await else { return };
    bench.run(spec(&["sh", "-c", "yes; sleep 1000"], json!({"name": "y"}))).await;
    let Caller { request, mut outputs, pack, input } = bench.caller("follow", json!({"id": "y"}));
    drop(input);
    let cancel = request.cancel.clone();
    let call = tokio::spawn(async move { pack.call(request).await });
    let mut bytes = 0;
    while let Some(output) = outputs.recv().await {
        if let Output::Data { lane: Lane::Result, bytes: more } = output {
            bytes += more.len();
        }
        if bytes > 100_000 {
            cancel.cancel();
            break;
        }
    }
    assert_eq!(call.await.expect("ended").expect_err("cancelled").code, Code::Cancelled);
    assert_eq!(told(&bench.call("one", json!({"id": "y"})).await)["state"], json!("running"));
}

#[tokio::test]
async fn what_is_not_granted_is_denied_whatever_the_pack_makes_of_it() {
    let host = Host::new(config()).expect("a host");
    let pack = host.load(wasm("containers")).await.expect("loads");
    let sentence =
        "this machine's policy does not let pack `containers` use `containers`; on that machine: agent allow containers containers IMAGE";
    for (command, params) in
        [("all", json!({})), ("images", json!({})), ("quiet", json!({})), ("run", json!({"spec": spec(&[], json!({}))}))]
    {
        let ended = Caller::new(&pack, &format!("work.{command}"), params, 4).with(|request| request.grants = Arc::default()).run().await;
        assert_eq!((ended.code(), ended.failure().message.as_str()), (Code::Denied, sentence), "{command}");
    }
    let grant: Grant = serde_json::from_value(usual()).expect("a grant");
    let grants = Arc::new(Grants { containers: Some(Arc::new(grant)), ..Grants::default() });
    let unsigned = Caller::new(&pack, "work.quiet", json!({}), 4).with(|request| {
        request.shared_only = true;
        request.grants = grants;
    });
    says(&unsigned.run().await, Code::Denied, "`containers` is for signed calls only");
}
