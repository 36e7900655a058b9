//! Which arguments a shape lets through, and what a caller may try to get past it.

use super::*;

fn shaped(entry: &str) -> Grant {
    Grant { allow: vec![Entry::parse(entry).expect(entry)], ..Grant::default() }
}

/// The arguments as they would be passed on.
fn passed(grant: &Grant, argv: &[&str]) -> Result<Vec<String>, ProcessError> {
    prepare("p", grant, spec(argv)).map(|prepared| prepared.arguments)
}

fn fits(entry: &str, arguments: &[&str]) -> bool {
    let argv: Vec<&str> = std::iter::once("uname").chain(arguments.iter().copied()).collect();
    match passed(&shaped(&format!("uname {entry}")), &argv) {
        Ok(_) => true,
        Err(ProcessError::Denied(_)) => false,
        Err(other) => panic!("{entry} {arguments:?}: {other:?}"),
    }
}

#[test]
fn words_choices_and_values_are_taken_in_order() {
    assert!(fits("status|restart nginx", &["restart", "nginx"]));
    for arguments in [&["stop", "nginx"][..], &["restart"], &["restart", "nginx", "sshd"], &["nginx", "restart"], &[]] {
        assert!(!fits("status|restart nginx", arguments), "{arguments:?}");
    }
    assert!(fits("[]", &[]) && !fits("[]", &[""]));
    assert!(fits("-n <1..64>", &["-n", "64"]) && fits("<-5..5>", &["-5"]));
    for number in ["0", "65", "064", "+7", "7 ", "0x7", "7.0", "", "99999999999999999999"] {
        assert!(!fits("-n <1..64>", &["-n", number]), "{number}");
    }
    assert!(fits("<glob:frame-*.exr>", &["frame-01.exr"]) && !fits("<glob:frame-*.exr>", &["frame-01.exr.sh"]));
    assert!(fits("<name>", &["Write_1.left-eye"]) && !fits("<name>", &["-x"]) && !fits("<name>", &["a/b"]) && !fits("<name>", &[""]));
    assert!(fits("'a|b' '<x>' '' 'it''s'", &["a|b", "<x>", "", "it's"]));
}

#[test]
fn what_may_be_left_out_or_repeated_is() {
    for arguments in [&[][..], &["a"], &["a", "b", "c"]] {
        assert!(fits("<value>*", arguments), "{arguments:?}");
    }
    assert!(fits("<value>+", &["a", "b"]) && !fits("<value>+", &[]));
    assert!(fits("<value>?", &[]) && fits("<value>?", &["a"]) && !fits("<value>?", &["a", "b"]));
    assert!(fits("[-n <1..9>] <value>", &["-n", "3", "x"]) && fits("[-n <1..9>] <value>", &["x"]));
    assert!(!fits("[-n <1..9>] <value>", &["-n", "x"]));
    assert!(fits("[-e <name>]* x", &["-e", "a", "-e", "b", "x"]) && fits("[-e <name>]+ x", &["-e", "a", "x"]));
    assert!(!fits("[-e <name>]+ x", &["x"]));
    // The last value belongs to the last word, however greedy the one before it is.
    assert!(fits("<value>* last", &["a", "last", "last"]));
}

#[test]
fn an_option_never_passes_as_a_value_unless_the_shape_says_so() {
    for option in ["-o/etc/passwd", "-", "--", "--output=/x"] {
        assert!(!fits("<value>", &[option]), "{option}");
        assert!(!fits("<glob:*>", &[option]), "{option}");
        assert!(!fits("<name>", &[option]), "{option}");
        assert!(fits("<anything>", &[option]), "{option}");
    }
    assert!(fits("<glob:-v*>", &["-vv"]) && fits("-- <value>", &["--", "x"]));
    assert!(fits("--out=<value>", &["--out=-x"]), "behind its own prefix a dash is no option");
    assert!(!fits("--out=<value>", &["--output=x"]));
}

#[test]
fn a_shape_that_could_explode_is_judged_in_time() {
    let many: Vec<&str> = std::iter::repeat_n("a", 1000).collect();
    assert!(!fits("<value>* <value>* <value>* <value>* [<value> <value>]* b", &many));
    let too_many: Vec<&str> = std::iter::repeat_n("a", 2000).collect();
    assert!(!fits("<value>*", &too_many));
}

/// A folder with a file, a folder beside it with another, and ways between them.
struct Folders {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let root = fs::canonicalize(dir.path()).expect("there");
        for name in ["in/deep", "out"] {
            fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        for name in ["in/a.txt", "in/deep/b.txt", "out/secret"] {
            fs::write(root.join(name), name).expect("write");
        }
        symlink(root.join("out/secret"), root.join("in/link")).expect("link");
        symlink(root.join("out"), root.join("in/folder")).expect("link");
        symlink(root.join("out/new"), root.join("in/dangling")).expect("link");
        symlink("a.txt", root.join("in/inner")).expect("link");
        symlink(root.join("in"), root.join("alias")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, root.join("in/pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("fifo");
        Folders { _dir: dir, root }
    }

    fn at(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    fn take(&self, kind: &str, path: &str) -> Result<String, ProcessError> {
        let grant = shaped(&format!("cat <{kind}:{}>", self.at("in/**")));
        passed(&grant, &["cat", path]).map(|arguments| arguments.concat())
    }
}

#[test]
fn a_path_is_passed_on_as_the_place_it_leads_to() {
    let folders = Folders::new();
    for (asked, wanted) in
        [("in/a.txt", "in/a.txt"), ("in/deep", "in/deep"), ("in/inner", "in/a.txt"), ("alias/deep/b.txt", "in/deep/b.txt")]
    {
        assert_eq!(folders.take("path", &folders.at(asked)), Ok(folders.at(wanted)), "{asked}");
    }
    let grant = shaped(&format!("cat --file=<path:{}>", folders.at("alias/*.txt")));
    let given = format!("--file={}", folders.at("in/a.txt"));
    assert_eq!(passed(&grant, &["cat", &given]), Ok(vec![given]), "the owner's own link counts as what it leads to");
}

#[test]
fn no_path_leads_out_of_its_folder() {
    let folders = Folders::new();
    let outside = ["in/link", "in/folder/secret", "out/secret", "in/../out/secret", "in", "in/dangling", "in/pipe", "alias/link"];
    for asked in outside {
        for kind in ["path", "newpath"] {
            let refused = folders.take(kind, &folders.at(asked));
            assert!(refused.is_err(), "{kind} {asked}: {refused:?}");
        }
    }
    for asked in ["in/a.txt", "", "-", "/dev/stdin", "/proc/self/environ", "/proc/self/root/etc/passwd"] {
        denial(folders.take("path", asked));
    }
    let grant = Grant { keep_out: vec![folders.root.join("in/deep")], ..shaped(&format!("cat <path:{}>", folders.at("in/**"))) };
    assert!(denial(passed(&grant, &["cat", &folders.at("in/deep/b.txt")])).contains("the agent's own"));
}

#[test]
fn what_is_there_is_told_inside_the_folder_only() {
    let folders = Folders::new();
    assert!(matches!(folders.take("path", &folders.at("in/nothing")), Err(ProcessError::NotFound(_))));
    let there = denial(folders.take("path", &folders.at("out/secret")));
    let not_there = denial(folders.take("path", &folders.at("out/nothing")));
    assert_eq!(there.replace("secret", "nothing"), not_there);
}

#[test]
fn what_one_shape_misses_another_may_have() {
    let folders = Folders::new();
    let shapes = [format!("cat <path:{}>", folders.at("in/**")), format!("cat <newpath:{}>", folders.at("in/**"))];
    let allow = shapes.map(|shape| Entry::parse(&shape).expect("reads")).to_vec();
    assert!(passed(&Grant { allow, ..Grant::default() }, &["cat", &folders.at("in/new")]).is_ok());
}

#[test]
fn a_new_path_has_a_free_name_in_a_folder_that_is_there() {
    let folders = Folders::new();
    assert_eq!(folders.take("newpath", &folders.at("in/deep/new")), Ok(folders.at("in/deep/new")));
    assert_eq!(folders.take("newpath", &folders.at("in/a.txt")), Ok(folders.at("in/a.txt")));
    assert!(folders.take("newpath", &folders.at("in/none/new")).is_err());
    denial(folders.take("newpath", &folders.at("in/folder/new")));
    denial(folders.take("newpath", &folders.at("new")));
}

#[test]
fn a_refused_argument_is_named_and_the_remedy_allows_just_that() {
    let grant = shaped("systemctl status|restart nginx");
    if find("p", &grant, "systemctl").is_err() {
        return; // No systemd here: the program itself is what is missing.
    }
    let said = denial(passed(&grant, &["systemctl", "restart", "sshd"]));
    insta::assert_snapshot!(said, @"this machine's policy lets pack `p` run `systemctl status|restart nginx`, and argument 2 `sshd` is not `nginx`; on that machine: agent allow p process 'systemctl restart sshd'");
}

#[test]
fn what_a_caller_wrote_is_quoted_in_the_remedy() {
    let grant = shaped("uname -s");
    let said = denial(passed(&grant, &["uname", "<anything>*"]));
    let remedy = said.rsplit_once("process ").expect("a remedy").1;
    assert_eq!(remedy, r"'uname '\''<anything>*'\'''");
    // As a shell would hand it over.
    let allowed = Entry::parse("uname '<anything>*'").expect("reads");
    let grant = Grant { allow: vec![allowed], ..Grant::default() };
    assert!(passed(&grant, &["uname", "<anything>*"]).is_ok());
    denial(passed(&grant, &["uname", "-a"]));
    let long = "x".repeat(1000);
    assert!(
        denial(passed(&shaped("uname -s"), &["uname", &long])).ends_with("in agent.toml: add them to `allow` of `process` under [packs.p]")
    );
}

#[test]
fn entries_of_one_program_add_up_and_each_has_its_own_limits() {
    let mut grant = Grant { env: vec!["LANG".into()], max_secs: Some(5), ..Grant::default() };
    let own = Entry { env: Some(vec!["TZ".into(), "LD_PRELOAD".into()]), max_secs: Some(1), ..Entry::parse("uname -s").expect("reads") };
    grant.allow = vec![own, Entry::parse("uname -m").expect("reads")];
    let with = |flag: &str, name: &str| prepare("p", &grant, Spec { env: vec![(name.into(), "x".into())], ..spec(&["uname", flag]) });
    assert_eq!(with("-s", "TZ").expect("its own").max_secs, Some(1));
    assert_eq!(with("-m", "LANG").expect("the grant's").max_secs, Some(5));
    for (flag, name) in [("-s", "LANG"), ("-m", "TZ"), ("-s", "LD_PRELOAD")] {
        denial(with(flag, name));
    }
    assert_eq!(judge("p", &grant, &["uname".into(), "-m".into()]), Ok(1));
    denial(judge("p", &grant, &["uname".into(), "-a".into()]));
}

#[tokio::test]
async fn no_more_run_at_once_than_the_entry_says() {
    let only_one = Entry { concurrent: Some(1), ..Entry::parse("sleep <1..1000>").expect("reads") };
    let grant = Grant { allow: vec![only_one, Entry::parse("sleep 0").expect("reads")], ..Grant::default() };
    let first = spawn("one-at-once", &grant, spec(&["sleep", "1000"]), false).await.expect("a place");
    let second = spawn("one-at-once", &grant, spec(&["sleep", "1000"]), false).await;
    assert!(matches!(&second, Err(ProcessError::Limit(text)) if text.contains("`sleep <1..1000>`")), "{second:?}");
    assert!(spawn("one-at-once", &grant, spec(&["sleep", "0"]), false).await.is_ok(), "another entry is counted apart");
    assert!(spawn("another-pack", &grant, spec(&["sleep", "1000"]), false).await.is_ok());
    drop(first);
    assert!(spawn("one-at-once", &grant, spec(&["sleep", "1000"]), false).await.is_ok());
}

#[tokio::test]
async fn a_program_that_sends_too_much_is_killed_and_told_apart() {
    let grant = Grant { allow: vec![Entry { output_mib: Some(1), ..Entry::from("head") }], ..Grant::default() };
    let running = spawn("p", &grant, spec(&["head", "-c", "3000000", "/dev/zero"]), false).await.expect("granted");
    let mut out = Vec::new();
    let mut pipe = running.stdout;
    pipe.read_to_end(&mut out).await.expect("pipe");
    assert_eq!((out.len(), running.child.wait().await.over_output), (1 << 20, Some(1)));
    let running = spawn("p", &grant, spec(&["head", "-c", "1048576", "/dev/zero"]), false).await.expect("granted");
    assert_eq!(read(running.stdout).await.len(), 1 << 20);
    assert_eq!(running.child.wait().await.over_output, None, "all it may, and no more");
}

#[tokio::test]
async fn what_is_sent_and_not_read_counts_as_sent() {
    let grant = Grant { allow: vec![Entry { output_mib: Some(1), ..Entry::from("sh") }], ..Grant::default() };
    let script = "head -c 1000000 /dev/zero; head -c 100000 /dev/zero >&2";
    let running = spawn("p", &grant, spec(&["sh", "-c", script]), false).await.expect("granted");
    let exit = running.child.wait().await;
    assert_eq!((exit.code, exit.over_output), (Some(0), Some(1)));
}
