//! What a caller may try, and what the machine's owner must be able to rely on.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::child::{ended_by_thread, registered};
use super::program::{find, prepare};
use super::*;

fn grant(allow: &[&str]) -> Grant {
    Grant { allow: allow.iter().map(|&entry| entry.into()).collect(), ..Grant::default() }
}

fn spec(argv: &[&str]) -> Spec {
    Spec { argv: argv.iter().map(|&word| word.to_owned()).collect(), ..Spec::default() }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}

async fn read(mut pipe: Pipe) -> String {
    let mut out = String::new();
    pipe.read_to_string(&mut out).await.expect("pipe");
    out
}

async fn output(grant: &Grant, spec: Spec) -> (String, Exit) {
    let running = spawn("system", grant, spec, false).await.expect("granted");
    let out = read(running.stdout).await;
    (out, running.child.wait().await)
}

fn denial(result: Result<impl std::fmt::Debug, ProcessError>) -> String {
    match result {
        Err(ProcessError::Denied(sentence)) => sentence,
        other => panic!("wanted a denial, got {other:?}"),
    }
}

/// A program of our own, a copy of an installed one.
fn install(folder: &Path, name: &str, like: &str) -> PathBuf {
    let path = folder.join(name);
    fs::copy(fs::canonicalize(like).expect("installed"), &path).expect("copy");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

#[tokio::test]
async fn a_granted_program_runs_and_its_ending_is_told() {
    let (out, exit) = output(&grant(&["uname"]), spec(&["uname", "-s"])).await;
    assert_eq!((out.as_str(), exit.code, exit.signal), ("Linux\n", Some(0), None));
    let (_, exit) = output(&grant(&["sh"]), spec(&["sh", "-c", "exit 7"])).await;
    assert_eq!((exit.code, exit.signal), (Some(7), None));
    let (_, exit) = output(&grant(&["sh"]), spec(&["sh", "-c", "kill -TERM $$"])).await;
    assert_eq!((exit.code, exit.signal), (None, Some(15)));
}

#[tokio::test]
async fn arguments_reach_the_program_as_they_are() {
    let (out, _) = output(&grant(&["printf"]), spec(&["printf", "%s|", "a b", "$(id)", "*", ""])).await;
    assert_eq!(out, "a b|$(id)|*||");
}

#[tokio::test]
async fn a_refusal_prints_the_command_that_lifts_it() {
    let said = denial(spawn("system", &Grant::default(), spec(&["uname", "-a"]), false).await);
    assert_eq!(said, "this machine's policy does not let pack `system` run `uname`; on that machine: agent allow system process uname");
    let said = denial(which("system", &grant(&["df"]), "/opt/x y").await);
    assert!(said.ends_with("agent allow system process '/opt/x y'"), "{said}");
}

#[test]
fn an_entry_matches_by_name_and_by_file() {
    let found = |allow: &str, request: &str| find("p", &grant(&[allow]), request);
    assert_eq!(found("uname", "uname").expect("bare").argv0, "uname");
    assert!(found("uname", "/usr/bin/uname").is_ok());
    assert!(found("/usr/bin/uname", "uname").is_ok());
    assert!(found("/bin/uname", "/usr/bin/uname").is_ok() || !Path::new("/bin").is_symlink());
    denial(found("uname", "id"));
    denial(found("uname", "/usr/bin/id"));
}

#[test]
fn no_spelling_makes_another_file_a_granted_one() {
    let folder = tempfile::tempdir().expect("folder");
    let fake = install(folder.path(), "uname", "/bin/sh");
    denial(find("p", &grant(&["uname"]), text(&fake)));
    for request in
        ["./uname", "bin/uname", "../bin/uname", "/usr/bin/../bin/uname", "./../bin/uname", "uname/", "/", ".", "..", "", "uname\0", "-"]
    {
        let refused = find("p", &grant(&["uname"]), request);
        assert!(matches!(refused, Err(ProcessError::Denied(_))), "{request:?}: {refused:?}");
    }
}

#[test]
fn a_link_with_the_granted_name_runs_only_what_the_owner_meant() {
    let folder = tempfile::tempdir().expect("folder");
    let link = folder.path().join("uname");
    symlink("/bin/sh", &link).expect("link");
    denial(find("p", &grant(&["uname"]), text(&link)));
    fs::remove_file(&link).expect("remove");
    symlink(fs::canonicalize("/usr/bin/uname").expect("installed"), &link).expect("link");
    // The same file under the same name: runs, but from the owner's path and under the owner's name.
    let found = find("p", &grant(&["uname"]), text(&link)).expect("same file");
    assert!(!found.path.starts_with(folder.path()) && found.argv0 == "uname", "{found:?}");
}

#[test]
fn a_multi_call_binary_gives_only_the_granted_name() {
    let folder = tempfile::tempdir().expect("folder");
    let all = install(folder.path(), "allbox", "/bin/sh");
    for name in ["df", "sh"] {
        symlink(&all, folder.path().join(name)).expect("link");
    }
    let (df, sh) = (folder.path().join("df"), folder.path().join("sh"));
    let granted = grant(&[text(&df)]);
    let found = find("p", &granted, text(&df)).expect("granted");
    assert_eq!((found.argv0.as_str(), &found.path, &found.canonical), (text(&df), &df, &fs::canonicalize(&all).expect("there")));
    denial(find("p", &granted, text(&sh)));
    denial(find("p", &granted, text(&all)));
}

#[test]
fn a_refusal_does_not_tell_what_exists() {
    let there = denial(find("p", &grant(&["uname"]), "/etc/passwd"));
    let not_there = denial(find("p", &grant(&["uname"]), "/etc/nothing"));
    assert_eq!(there.replace("passwd", "nothing"), not_there);
    assert!(matches!(find("p", &grant(&["no-such-program"]), "no-such-program"), Err(ProcessError::NotFound(_))));
    let folder = tempfile::tempdir().expect("folder");
    let plain = folder.path().join("plain");
    fs::write(&plain, "not executable").expect("write");
    assert!(matches!(find("p", &grant(&[text(&plain)]), text(&plain)), Err(ProcessError::NotFound(_))));
}

#[test]
fn senseless_requests_fail_before_anything_is_looked_up() {
    let refused = |spec| prepare("p", &grant(&["uname"]), spec).expect_err("refused");
    assert!(matches!(refused(Spec::default()), ProcessError::Failed(_)));
    assert!(matches!(refused(spec(&["uname", "a\0b"])), ProcessError::Failed(_)));
    assert!(matches!(refused(spec(&["uname\0", "-a"])), ProcessError::Failed(_)));
    assert!(matches!(refused(Spec { cwd: Some("/\0".into()), ..spec(&["uname"]) }), ProcessError::Failed(_)));
    assert!(matches!(refused(spec(&["uname", &"x".repeat(2 << 20)])), ProcessError::Limit(_)));
}

#[tokio::test]
async fn the_environment_is_ours_and_the_listed_names() {
    let mut granted = grant(&["env"]);
    granted.env = ["GREETING", "LD_PRELOAD", "PATH", "GLIBC_TUNABLES"].map(Into::into).to_vec();
    let with = |name: &str, value: &str| Spec { env: vec![(name.into(), value.into())], ..spec(&["env"]) };
    let (out, _) = output(&granted, with("GREETING", "a=b c")).await;
    let names: Vec<&str> = out.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(out.lines().any(|line| line == "PATH=/usr/local/bin:/usr/bin:/bin"), "{out}");
    assert!(out.lines().any(|line| line == "GREETING=a=b c"), "{out}");
    let known = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "GREETING"];
    assert!(names.iter().all(|name| known.contains(name) || name.starts_with("LC_")), "the agent's own variables leak: {names:?}");
    let said = denial(spawn("system", &granted, with("NODE_OPTIONS", "x"), false).await);
    assert!(said.contains("`NODE_OPTIONS`") && said.contains("agent allow system process --env NODE_OPTIONS"), "{said}");
    for name in ["LD_PRELOAD", "PATH", "GLIBC_TUNABLES", "LD_AUDIT"] {
        denial(spawn("system", &granted, with(name, "/tmp/evil.so"), false).await);
    }
    for name in ["", "A=B"] {
        assert!(matches!(spawn("system", &granted, with(name, "x"), false).await, Err(ProcessError::Failed(_))));
    }
}

#[tokio::test]
async fn a_caller_starts_only_below_a_granted_directory() {
    let folder = tempfile::tempdir().expect("folder");
    let root = fs::canonicalize(folder.path()).expect("there");
    for name in ["in/deep", "out", "in-other"] {
        fs::create_dir_all(root.join(name)).expect("mkdir");
    }
    symlink(root.join("out"), root.join("in/escape")).expect("link");
    let mut granted = grant(&["pwd"]);
    granted.cwd = vec![root.join("in")];
    let at = |path: &Path| Spec { cwd: Some(text(path).into()), ..spec(&["pwd", "-P"]) };
    let (out, _) = output(&granted, at(&root.join("in/deep"))).await;
    assert_eq!(out.trim_end(), text(&root.join("in/deep")));
    for outside in ["out", "in-other", "in/escape", "in/../out", "nothing"] {
        denial(spawn("system", &granted, at(&root.join(outside)), false).await);
    }
    denial(spawn("system", &granted, at(Path::new("in")), false).await);
    assert!(matches!(spawn("system", &granted, at(&root.join("in/nothing")), false).await, Err(ProcessError::NotFound(_))));
}

#[tokio::test]
async fn without_a_wish_a_child_starts_at_home() {
    let (out, _) = output(&grant(&["pwd"]), spec(&["pwd", "-P"])).await;
    let home = std::env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok()).unwrap_or_else(|| "/".into());
    assert_eq!(Path::new(out.trim_end()), home);
}

#[tokio::test]
async fn input_reaches_the_child_and_its_absence_is_end_of_file() {
    let mut running = spawn("system", &grant(&["cat"]), spec(&["cat"]), true).await.expect("granted");
    let mut stdin = running.stdin.take().expect("asked for");
    stdin.write_all(b"hello").await.expect("write");
    drop(stdin);
    assert_eq!(read(running.stdout).await, "hello");
    assert_eq!(running.child.wait().await.code, Some(0));
    let (out, exit) = output(&grant(&["cat"]), spec(&["cat"])).await;
    assert_eq!((out.as_str(), exit.code), ("", Some(0)));
}

#[tokio::test]
async fn a_hundred_megabytes_flow_through_the_pipe() {
    let wanted: usize = 100 * 1024 * 1024;
    let running =
        spawn("system", &grant(&["head"]), spec(&["head", "-c", &wanted.to_string(), "/dev/zero"]), false).await.expect("granted");
    let (mut pipe, mut buffer, mut total) = (running.stdout, vec![1; PIPE_READ], 0);
    loop {
        match pipe.read(&mut buffer).await.expect("pipe") {
            0 => break,
            n => {
                assert!(buffer.iter().take(n).all(|&byte| byte == 0));
                total += n;
            }
        }
    }
    assert_eq!((total, running.child.wait().await.code), (wanted, Some(0)));
}
const PIPE_READ: usize = 256 * 1024;

#[tokio::test]
async fn a_stream_nobody_reads_does_not_stall_the_child() {
    let running = spawn("system", &grant(&["head"]), spec(&["head", "-c", "4000000", "/dev/zero"]), false).await.expect("granted");
    tokio::spawn(drain(running.stdout));
    assert_eq!(running.child.wait().await.code, Some(0));
}

#[tokio::test]
async fn dropping_a_child_kills_its_whole_group() {
    // The grandchild holds the pipe: its end of file says that nobody of the group is left.
    let running = spawn("system", &grant(&["sh"]), spec(&["sh", "-c", "sleep 1000 & sleep 1000"]), false).await.expect("granted");
    let pid = running.child.pid();
    drop(running.child);
    assert_eq!(read(running.stdout).await, "");
    gone(pid);
}

#[tokio::test]
async fn what_a_leader_leaves_behind_dies_with_the_handle() {
    let running = spawn("system", &grant(&["sh"]), spec(&["sh", "-c", "sleep 1000 & exit 3"]), false).await.expect("granted");
    assert_eq!(running.child.wait().await.code, Some(3));
    let pid = running.child.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the number must stay taken while the group may be signalled");
    drop(running.child);
    assert_eq!(read(running.stdout).await, "");
    gone(pid);
}

#[tokio::test]
async fn signals_reach_the_whole_group_while_somebody_waits() {
    for (signal, number) in [(Signal::Interrupt, 2), (Signal::Terminate, 15), (Signal::Kill, 9)] {
        let running = spawn("system", &grant(&["sleep"]), spec(&["sleep", "1000"]), false).await.expect("granted");
        let (exit, ()) = tokio::join!(running.child.wait(), async { running.child.kill(signal) });
        assert_eq!((exit.code, exit.signal, exit.over_limit), (None, Some(number), false));
        running.child.kill(Signal::Kill);
    }
}

#[tokio::test]
#[expect(unsafe_code, reason = "a signal is ignored, as behind a shell's `&`")]
async fn a_program_hears_what_its_agent_ignores() {
    // SAFETY: nothing is handled, only ignored, and no test here is sent it.
    unsafe { libc::signal(libc::SIGQUIT, libc::SIG_IGN) };
    let running = spawn("system", &grant(&["grep"]), spec(&["grep", "SigIgn", "/proc/self/status"]), false).await.expect("granted");
    let said = read(running.stdout).await;
    let ignored = u64::from_str_radix(said.split_whitespace().nth(1).expect("a set"), 16).expect("of signals");
    assert_eq!(ignored & 1 << (libc::SIGQUIT - 1), 0, "{said}");
}

#[tokio::test]
async fn a_child_whose_time_is_over_is_killed_and_told_apart() {
    let granted = Grant { max_secs: Some(0), ..grant(&["sh"]) };
    let running = spawn("system", &granted, spec(&["sh", "-c", "sleep 1000 & sleep 1000"]), false).await.expect("granted");
    let exit = running.child.wait().await;
    assert_eq!((exit.code, exit.signal, exit.over_limit), (None, Some(9), true));
    assert_eq!(read(running.stdout).await, "");
}

#[tokio::test]
async fn a_given_up_start_leaves_no_child() {
    let folder = tempfile::tempdir().expect("folder");
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("fifo");
    let granted = grant(&["sh"]);
    let script = format!("exec 3<>{}; sleep 1000", text(&fifo));
    for _ in 0..20 {
        let start = spawn("given-up", &granted, spec(&["sh", "-c", &script]), false);
        tokio::select! {
            biased;
            _ = start => {}
            () = tokio::task::yield_now() => {}
        }
    }
    // Whatever was started has been killed: nobody holds the pipe's other end any more.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let write = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        match rustix::fs::open(&fifo, write, rustix::fs::Mode::empty()) {
            Err(rustix::io::Errno::NXIO) => break,
            _ => assert!(Instant::now() < deadline, "a child outlived its start"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pack_cannot_fill_the_process_table() {
    let (granted, mut alive) = (grant(&["sleep"]), Vec::new());
    let refusal = loop {
        match spawn("greedy", &granted, spec(&["sleep", "1000"]), false).await {
            Ok(running) => alive.push(running.child),
            Err(refusal) => break refusal,
        }
        assert!(alive.len() <= 128);
    };
    assert!(matches!(refusal, ProcessError::Limit(_)), "{refusal:?}");
    assert!(spawn("modest", &granted, spec(&["sleep", "0"]), false).await.is_ok());
    drop(alive);
    assert!(spawn("greedy", &granted, spec(&["sleep", "0"]), false).await.is_ok());
}

#[tokio::test]
async fn which_tells_the_canonical_path_of_a_granted_program() {
    let path = which("system", &grant(&["uname"]), "uname").await.expect("granted");
    assert_eq!(path, fs::canonicalize("/usr/bin/uname").expect("installed"));
}

#[tokio::test]
async fn a_script_without_its_interpreter_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let script = folder.path().join("tool");
    // Written by another process: a handle of ours, copied by another test's fork, would make the file busy.
    let write = format!("printf '#!/no/such/interpreter\\n' > {0}; chmod 755 {0}", text(&script));
    assert!(std::process::Command::new("sh").args(["-c", &write]).status().is_ok_and(|status| status.success()));
    let refused = spawn("system", &grant(&[text(&script)]), spec(&[text(&script)]), false).await;
    assert!(matches!(refused, Err(ProcessError::NotFound(text)) if text.contains("interpreter")));
}

#[tokio::test]
async fn an_old_kernel_gets_a_waiting_thread_and_the_zombie_stays() {
    let mut child = std::process::Command::new("sh").args(["-c", "exit 5"]).spawn().expect("sh");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("not zero");
    ended_by_thread(pid).await;
    let status = child.try_wait().expect("ours").expect("a zombie, not yet reaped");
    assert_eq!(status.code(), Some(5));
    ended_by_thread(pid).await;
}

/// Plays the agent for the test below: starts a child, prints its number, waits to be killed.
#[tokio::test]
#[ignore = "is the other half of a_child_dies_with_an_agent_that_is_killed"]
async fn play_an_agent_that_is_killed() {
    let running = spawn("system", &grant(&["sleep"]), spec(&["sleep", "1000"]), false).await.expect("granted");
    println!("child {}", running.child.pid());
    running.child.wait().await;
}

#[tokio::test]
async fn a_child_dies_with_an_agent_that_is_killed() {
    let module = module_path!().split_once("::").expect("in a crate").1;
    let mut agent = std::process::Command::new(std::env::current_exe().expect("ourselves"))
        .args(["--ignored", "--nocapture", "--exact", &format!("{module}::play_an_agent_that_is_killed")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("ourselves again");
    let lines = BufReader::new(agent.stdout.take().expect("piped")).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.split_once("child ").and_then(|(_, pid)| pid.trim().parse::<i32>().ok()));
    let pid = rustix::process::Pid::from_raw(pid.expect("a number")).expect("not zero");
    let child = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).expect("alive");
    agent.kill().expect("kill");
    agent.wait().expect("reap");
    let end = registered(child).expect("handle");
    let told = tokio::time::timeout(Duration::from_secs(10), end.readable()).await;
    assert!(told.is_ok(), "the child outlived its agent");
}

#[test]
fn known_carriers_are_called_out() {
    for name in ["sh", "/bin/bash", "python3.11", "env", "busybox", "/usr/bin/perl", "lua5.4", "sudo", "awk"] {
        assert!(runs_anything(name), "{name}");
    }
    for name in ["uname", "df", "nvidia-smi", "/usr/bin/cat", ""] {
        assert!(!runs_anything(name), "{name}");
    }
    let folder = tempfile::tempdir().expect("folder");
    symlink("/bin/sh", folder.path().join("tool")).expect("link");
    assert!(runs_anything(text(&folder.path().join("tool"))), "a link to a shell is a shell");
}

#[test]
fn an_entry_reads_and_is_written_as_the_configuration_has_it() {
    let json = r#"{"program":"nuke","argv":["-x",{"optional":["-m","<1..64>"]},["--quiet","--loud"],"-X=<name>","<path:/proj/**.nk>+"],"env":["OCIO"],"cwd":["/proj"],"max_secs":60,"concurrent":2,"output_mib":16}"#;
    let entry: Entry = serde_json::from_str(json).expect("entry");
    assert_eq!(entry.to_string(), "nuke -x [-m <1..64>] --quiet|--loud -X=<name> <path:/proj/**.nk>+");
    assert_eq!(serde_json::to_string(&entry).expect("written"), json);
    let bare: Entry = serde_json::from_str(r#""/opt/my tool""#).expect("a text is a program, spaces and all");
    assert!(bare.is_bare() && bare.program == "/opt/my tool");
    let wrong = [
        r#""./df""#,
        r#"{"argv": []}"#,
        r#"{"program": "df", "arg": []}"#,
        r#"{"program": "df", "argv": "-h"}"#,
        r#"{"program": "df", "argv": [[]]}"#,
        r#"{"program": "df", "argv": [{"maybe": ["x"]}]}"#,
        r#"{"program": "df", "argv": [{"any": ["<value>?"]}]}"#,
        r#"{"program": "df", "argv": ["<x"]}"#,
        r#"{"program": "df", "argv": ["<value>s"]}"#,
        r#"{"program": "df", "argv": ["<number>"]}"#,
        r#"{"program": "df", "argv": ["<9..1>"]}"#,
        r#"{"program": "df", "argv": ["<path:srv>"]}"#,
        r#"{"program": "df", "env": ["A=B"]}"#,
        r#"{"program": "df", "cwd": ["srv"]}"#,
        r#"{"program": "df", "concurrent": 0}"#,
        r#"{"program": "df", "output_mib": 0}"#,
    ];
    let said: Vec<String> = wrong.map(|json| format!("{json}\n    {}", serde_json::from_str::<Entry>(json).expect_err(json))).to_vec();
    insta::assert_snapshot!(said.join("\n"));
}

/// The number is free again: killed and reaped.
fn gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "{pid} was not reaped");
        std::thread::yield_now();
    }
}

mod shapes;
