//! From a request to something that may be executed: which program, in which environment, in which directory. Everything a caller
//! could use to turn a granted program into another one is decided here.
//!
//! A request matches an entry when it has the entry's file name *and* resolves to the same file. Both halves matter: the name alone
//! would run any file called `df`, the file alone would make `df` on a multi-call binary (busybox) a grant of `sh`. What is executed
//! is the owner's path, never the caller's spelling of it, so that neither a symlink changed in between nor an `argv[0]` that makes an
//! interpreter look for its configuration in a caller's directory has any effect.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};

use super::entry::exactly;
use super::{Entry, Grant, ProcessError, SEARCH, Spec};
use crate::power::{SHELL_WORD_CHARS, shell_word, shown};

/// Bytes of arguments and environment together. A call's parameters end at 512 KiB; the kernel's own ceiling is 2 MiB or more.
const ARGUMENT_BYTES: usize = 1 << 20;

/// Variables the dynamic loader or libc obeys in every program. One of them in a list of names would allow everything and not look it.
const LOADER_PREFIXES: [&str; 2] = ["LD_", "DYLD_"];
const LOADER_NAMES: [&str; 3] = ["GLIBC_TUNABLES", "GCONV_PATH", "PATH"];

/// Taken over from the agent where it has them: language, clock and whose home it is.
const INHERITED: [&str; 5] = ["HOME", "USER", "LOGNAME", "LANG", "TZ"];

/// A granted program, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The owner's path: what is executed.
    pub(super) path: PathBuf,
    /// Where that path leads.
    pub(super) canonical: PathBuf,
    /// What the program sees as its own name.
    pub(super) argv0: String,
}

/// A request that policy allows, ready to be executed.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) program: Found,
    pub(super) arguments: Vec<String>,
    pub(super) env: Vec<(OsString, OsString)>,
    /// Held open, so that the directory that was checked is the one entered.
    pub(super) cwd: Option<OwnedFd>,
    pub(super) max_secs: Option<u64>,
    /// The entry by which it is counted, and how many of it may run.
    pub(super) concurrent: Option<(String, usize)>,
    /// Bytes it may send.
    pub(super) output: Option<u64>,
}

/// An entry that allows a request, and the request as it is passed on.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) entry: usize,
    found: Found,
    arguments: Vec<String>,
}

/// Checks a whole request against a grant.
pub(super) fn prepare(pack: &str, grant: &Grant, spec: Spec) -> Result<Prepared, ProcessError> {
    check_texts(&spec)?;
    let Allowed { entry, found: program, arguments } = judge(pack, grant, &spec.argv)?;
    let entry = &grant.allow[entry];
    let env = environment(pack, entry.env.as_ref().unwrap_or(&grant.env), spec.env)?;
    let cwd = directory(pack, entry.cwd.as_ref().unwrap_or(&grant.cwd), spec.cwd.as_deref())?;
    let concurrent = entry.concurrent.map(|most| (entry.key(), most as usize));
    let output = entry.output_mib.map(|mib| mib.saturating_mul(1 << 20));
    Ok(Prepared { program, arguments, env, cwd, max_secs: entry.max_secs.or(grant.max_secs), concurrent, output })
}

/// The first entry that allows a program with its arguments.
pub(super) fn judge(pack: &str, grant: &Grant, argv: &[String]) -> Result<Allowed, ProcessError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(ProcessError::Failed("`argv` is empty: it wants a program and its arguments".into()));
    };
    let (mut unfit, mut missing) = (None, None);
    for (entry, found) in candidates(pack, grant, program)? {
        let Some(shape) = &grant.allow[entry].argv else {
            return Ok(Allowed { entry, found, arguments: arguments.to_vec() });
        };
        match shape.fit(arguments, &grant.keep_out) {
            Ok(arguments) => return Ok(Allowed { entry, found, arguments }),
            Err(why) if why.missing => missing = Some((entry, why)),
            Err(why) => unfit = Some((entry, why)),
        }
    }
    Err(match missing.or(unfit) {
        Some((entry, why)) if why.missing => {
            ProcessError::NotFound(format!("`{}` cannot be run so: {}", grant.allow[entry].program, why.sentence))
        }
        Some((entry, why)) => ProcessError::Denied(unshaped(pack, &grant.allow[entry], &why.sentence, argv)),
        None => not_listed(pack, program),
    })
}

/// The sentence for arguments that no shape of the program has. The command in it would allow just these: what a caller wrote is
/// quoted in it, so that it cannot pose as a placeholder.
fn unshaped(pack: &str, entry: &Entry, why: &str, argv: &[String]) -> String {
    let exact = exactly(argv);
    let fits = exact.chars().count() < SHELL_WORD_CHARS && !entry.program.contains(char::is_whitespace);
    let remedy = match fits {
        true => format!("on that machine: agent allow {pack} process {}", shell_word(&exact)),
        false => format!("on that machine, in agent.toml: add them to `allow` of `process` under [packs.{pack}]"),
    };
    format!("this machine's policy lets pack `{pack}` run `{entry}`, and {why}; {remedy}")
}

fn not_listed(pack: &str, request: &str) -> ProcessError {
    let (name, word) = (shown(request), shell_word(request));
    ProcessError::Denied(format!(
        "this machine's policy does not let pack `{pack}` run `{name}`; on that machine: agent allow {pack} process {word}"
    ))
}

fn check_texts(spec: &Spec) -> Result<(), ProcessError> {
    let pairs = spec.env.iter().flat_map(|(name, value)| [name, value]);
    let mut bytes = 0usize;
    for text in spec.argv.iter().chain(pairs).chain(&spec.cwd) {
        if text.contains('\0') {
            return Err(ProcessError::Failed(format!("`{}` contains a NUL byte, which no argument can carry", shown(text))));
        }
        // The kernel counts a terminator and a pointer for each.
        bytes = bytes.saturating_add(text.len() + 9);
    }
    if bytes > ARGUMENT_BYTES {
        return Err(ProcessError::Limit(format!(
            "arguments and environment take {bytes} bytes, and at most {ARGUMENT_BYTES} are passed to a program"
        )));
    }
    Ok(())
}

/// Finds what `request` names, if an entry of the grant allows it.
pub(super) fn find(pack: &str, grant: &Grant, request: &str) -> Result<Found, ProcessError> {
    candidates(pack, grant, request)?.into_iter().next().map(|(_, found)| found).ok_or_else(|| not_listed(pack, request))
}

/// The entries that name what `request` names, in their order. Looks at no file unless an entry has the request's name, so that a
/// refusal tells nothing about what is on the machine.
fn candidates(pack: &str, grant: &Grant, request: &str) -> Result<Vec<(usize, Found)>, ProcessError> {
    if !names_a_program(request) {
        let what = shown(request);
        return Err(ProcessError::Denied(format!(
            "`{what}` is neither a bare name nor an absolute path without `..`, and nothing else may be run"
        )));
    }
    let name = Path::new(request).file_name();
    let named = |entry: &Entry| names_a_program(&entry.program) && Path::new(&entry.program).file_name() == name;
    let mut entries = grant.allow.iter().enumerate().filter(|(_, entry)| named(entry)).peekable();
    if entries.peek().is_none() {
        return Err(not_listed(pack, request));
    }
    let wanted =
        locate(request).ok_or_else(|| ProcessError::NotFound(format!("there is no program `{}` on this machine", shown(request))))?;
    let canonical = resolve(&wanted)?;
    let found = entries.filter_map(|(number, entry)| {
        let path = locate(&entry.program).filter(|path| fs::canonicalize(path).is_ok_and(|real| real == canonical))?;
        Some((number, Found { argv0: own_name(&path), path, canonical: canonical.clone() }))
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { Err(not_listed(pack, request)) } else { Ok(found) }
}

/// Whether a text has the form of a program: a bare name, or an absolute path without `.` and `..`.
fn names_a_program(text: &str) -> bool {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let ends_in_name = path.file_name().is_some_and(|name| text.as_bytes().ends_with(name.as_encoded_bytes()));
    plain && ends_in_name && !text.contains('\0') && (path.is_absolute() || !text.contains('/'))
}

/// The executable file a bare name or an absolute path stands for.
fn locate(text: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file()) && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if text.starts_with('/') {
        return Some(PathBuf::from(text)).filter(runs);
    }
    SEARCH.iter().map(|folder| Path::new(folder).join(text)).find(runs)
}

fn resolve(path: &Path) -> Result<PathBuf, ProcessError> {
    fs::canonicalize(path).map_err(|source| ProcessError::Failed(format!("`{}` does not resolve: {source}", path.display())))
}

/// A bare name where every program is called so, the full path elsewhere: an interpreter finds its own folder by it.
fn own_name(path: &Path) -> String {
    let usual = path.parent().is_some_and(|folder| SEARCH.iter().any(|usual| folder == Path::new(usual)));
    match path.file_name() {
        Some(name) if usual => name.to_string_lossy().into_owned(),
        _ => path.to_string_lossy().into_owned(),
    }
}

fn environment(pack: &str, granted: &[String], asked: Vec<(String, String)>) -> Result<Vec<(OsString, OsString)>, ProcessError> {
    let mut env: Vec<(OsString, OsString)> = vec![("PATH".into(), SEARCH.join(":").into())];
    env.extend(
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("LC_"))),
    );
    for (name, value) in asked {
        check_variable(pack, granted, &name)?;
        env.push((name.into(), value.into()));
    }
    Ok(env)
}

fn check_variable(pack: &str, granted: &[String], name: &str) -> Result<(), ProcessError> {
    let said = shown(name);
    if name.is_empty() || name.contains('=') {
        return Err(ProcessError::Failed(format!("`{said}` is not a name an environment variable can have")));
    }
    if LOADER_NAMES.contains(&name) || LOADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(ProcessError::Denied(format!("`{said}` decides what code a program loads: no policy lets a caller set it")));
    }
    if !granted.iter().any(|allowed| allowed == name) {
        return Err(ProcessError::Denied(format!(
            "this machine's policy does not let pack `{pack}` set `{said}`; on that machine: agent allow {pack} process --env {}",
            shell_word(name)
        )));
    }
    Ok(())
}

/// Opens the directory a child starts in. The open handle is what is checked (the kernel says where it leads) and what is entered.
fn directory(pack: &str, granted: &[PathBuf], asked: Option<&str>) -> Result<Option<OwnedFd>, ProcessError> {
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let Some(asked) = asked else {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        return Ok(home.and_then(|home| open(&home).ok()));
    };
    let path = Path::new(asked);
    let denied = || {
        ProcessError::Denied(format!(
            "this machine's policy does not let pack `{pack}` start a program in `{}`; on that machine: agent allow {pack} process --cwd {}",
            shown(asked),
            shell_word(asked)
        ))
    };
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(ProcessError::Denied(format!(
            "`{}` is not an absolute path without `..`, and a program starts nowhere else",
            shown(asked)
        )));
    }
    let handle = match open(path) {
        Ok(handle) => handle,
        // Only inside a granted directory may a caller learn what is there.
        Err(_) if !granted.iter().any(|granted| path.starts_with(granted)) => {
            return Err(denied());
        }
        Err(source) if source.kind() == ErrorKind::NotFound => {
            return Err(ProcessError::NotFound(format!("there is no directory `{}`", shown(asked))));
        }
        Err(source) => {
            return Err(ProcessError::Failed(format!("the directory `{}` cannot be entered: {source}", shown(asked))));
        }
    };
    let place = entrance(&handle);
    let real = fs::read_link(&place)
        .map_err(|source| ProcessError::Failed(format!("`{}` does not resolve (is /proc mounted?): {source}", shown(asked))))?;
    let inside = granted.iter().filter_map(|granted| fs::canonicalize(granted).ok()).any(|granted| real.starts_with(granted));
    if inside { Ok(Some(handle)) } else { Err(denied()) }
}

/// A path that leads to an open directory, whatever happened to its name.
pub(super) fn entrance(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// Whether an entry may stand in `allow`; the error says why not.
pub fn check_entry(entry: &str) -> Result<(), String> {
    if names_a_program(entry) {
        return Ok(());
    }
    Err(format!("`{}` is neither a bare program name nor an absolute path without `..`", shown(entry)))
}

/// Whether allowing this program allows everything: shells, interpreters, and programs made to run other programs. An entry is a name
/// or a path; where it leads counts as well. Known names only, so `false` is no proof of harmlessness.
pub fn runs_anything(entry: &str) -> bool {
    let target = locate(entry).and_then(|path| fs::canonicalize(path).ok());
    [Some(Path::new(entry)), target.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(Path::file_name)
        .any(|name| is_carrier(&name.to_string_lossy()))
}

/// Whether a variable makes many programs run or load something else: an interpreter's, a version control's, a shell's. Those of the
/// dynamic loader are refused whatever policy lists, these are only warned of.
#[must_use]
pub fn steers_programs(variable: &str) -> bool {
    STEERING.contains(&variable) || variable.starts_with("GIT_") || variable.starts_with("PYTHON") || variable.starts_with("BASH_FUNC_")
}

#[rustfmt::skip]
const STEERING: &[&str] = &[
    "BASH_ENV", "ENV", "SHELLOPTS", "PS4", "IFS", "EDITOR", "VISUAL", "PAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "MANPAGER",
    "NODE_OPTIONS", "NODE_PATH", "PERL5OPT", "PERL5LIB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH",
    "LUA_INIT", "LUA_PATH", "LUA_CPATH", "PHPRC", "PHP_INI_SCAN_DIR", "GEM_PATH", "RUSTC_WRAPPER", "CC", "SSH_ASKPASS", "OPENSSL_CONF",
    "HOME", "XDG_CONFIG_HOME", "TERMINFO", "MALLOC_CONF",
];

fn is_carrier(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    CARRIERS.contains(&name.as_str()) || CARRIERS.contains(&stem)
}

/// Shells; interpreters; programs whose arguments name another program to run; programs that open a shell elsewhere.
#[rustfmt::skip]
const CARRIERS: &[&str] = &[
    "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "rbash", "nu", "elvish", "xonsh", "pwsh", "busybox", "toybox",
    "python", "pypy", "perl", "ruby", "irb", "node", "nodejs", "deno", "bun", "php", "lua", "luajit", "tclsh", "wish", "expect", "guile", "Rscript", "rscript",
    "julia", "java", "jshell", "awk", "gawk", "mawk", "nawk", "sed", "ed", "ex", "vi", "vim", "nvim", "view", "emacs", "nano", "less", "more", "man", "gdb", "lldb",
    "env", "xargs", "find", "parallel", "nohup", "setsid", "timeout", "time", "nice", "ionice", "chrt", "taskset", "stdbuf", "flock", "watch", "script", "unshare",
    "nsenter", "chroot", "sudo", "doas", "su", "runuser", "setpriv", "pkexec", "systemd-run", "strace", "ltrace", "ld.so", "ld-linux-x86-64.so", "tar", "rsync", "git", "make",
    "ssh", "scp", "sftp", "socat", "nc", "ncat", "at", "batch", "crontab", "screen", "tmux", "docker", "podman", "kubectl", "npm", "npx", "pip", "uv", "cargo", "apt", "apt-get", "dpkg",
];
