//! The agent's command line: what can be typed, and what comes of it. stdout is data, stderr is talk; a failure is
//! `error: …` and `hint: …` on stderr, with `--json` an object on stdout instead, and its code is the exit status.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{FalseyValueParser, StyledStr};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use outhaul_home::{Home, Lock};
use outhaul_host::Power;
use outhaul_host::power::kv;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::text::{escape_control, escape_control_lines};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, FILE};
use crate::edit::{Items, Room, Web};
use crate::explain;
use crate::pair::{self, News, Wish};
use crate::pins::Membership;
use crate::vault::{self, Vault};
use crate::{show, trial, trust};

/// Outhaul's agent: dials out to a relay, hosts capability packs, listens on nothing.
#[derive(Debug, Parser)]
#[command(name = "agent", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// Where keys, pins, packs and configuration are. Default: $XDG_DATA_HOME/outhaul, else ~/.local/share/outhaul.
    #[arg(long, global = true, env = "OUTHAUL_HOME", value_name = "DIR", help_heading = "Everywhere")]
    pub home: Option<PathBuf>,
    /// Prints JSON on stdout, failures included.
    #[arg(long, global = true, env = "OUTHAUL_JSON", value_parser = FalseyValueParser::new(), help_heading = "Everywhere")]
    pub json: bool,
    /// Logs as JSON lines; how much is RUST_LOG's to say.
    #[arg(long, global = true, env = "OUTHAUL_LOG_JSON", value_parser = FalseyValueParser::new(), help_heading = "Everywhere")]
    pub log_json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  agent pair --relay ws://127.0.0.1:8765 --code 482913 --name bench-1
  agent run
  agent allow system process uname df
  agent allow system process 'systemctl status|restart nginx'
  agent secret set api_token
  agent allow shots http api.example.org --header 'authorization=Bearer {secret:api_token}'
  agent policy show
  agent policy explain system process systemctl stop nginx";

#[derive(Debug, Subcommand)]
enum Command {
    /// Joins this machine to a fleet, by the code that `relay pair new` shows, or by an operator's approval.
    ///
    /// Without --code this machine shows six digits and waits until an operator approves it: relay pair approve NAME.
    Pair(Pair),
    /// Runs until stopped: keeps a connection to the relay and answers calls.
    Run,
    /// Says whether this machine is paired and running, and which packs it has.
    Status,
    /// Grants a pack a power, in agent.toml; a running agent sees it at the next call.
    ///
    /// POWER is process (ITEMs: programs), files (ITEMs: folders), kv (values the pack keeps), camera (ITEMs: devices; all
    /// without), screen (ITEMs: displays; all without), location, notify (messages to the person here), http (ITEMs: hosts),
    /// secrets (ITEMs: names), containers (ITEMs: images), call (ITEMs: commands of other packs), gpu or system. Comments
    /// and order of the file stay. A grant to an embedded pack belongs to its name; to a deployed one, to its name and
    /// publisher, in every version. A version that asks for more powers than those you decided on waits for you: `agent
    /// policy show`.
    ///
    /// A folder has its rights behind it: /srv/data:rl lets a pack read files and list what there is (the default), w
    /// change, add and remove, c only add.
    ///
    /// A program alone may run with any arguments. With a shape behind it, in one ITEM, only with such arguments:
    /// 'systemctl status|restart nginx', 'tail [-n <1..1000>] <path:/var/log/**>+', 'uname []' (none). A word is itself;
    /// a|b is one of these, <value> any argument but an option, <anything> any, <name> an identifier, <1..64> a number,
    /// <glob:frame-*> a pattern, <path:/srv/**> a file or folder there, <newpath:/srv/*> also one to be made. Behind a >,
    /// ? means once or not at all, * any number of times, + at least once; around words that belong together, [ ] [ ]* [ ]+
    /// mean the same. Single quotes make any text a word.
    Allow(Grant),
    /// Takes a power of a pack away, or some of its items.
    Deny(Grant),
    /// Shows what the packs may do here.
    Policy {
        #[command(subcommand)]
        command: Option<Policy>,
    },
    /// Shows or changes whose packs may be installed here.
    ///
    /// Packs come signed. The fleet's publishers are known from the pairing; the owner of this machine can trust more,
    /// or refuse some of those. Trust lets a pack in; what it may do is for `agent allow` to say.
    Trust {
        #[command(subcommand)]
        command: Option<Trust>,
    },
    /// Keeps passwords and tokens for packs' web requests.
    Secret {
        #[command(subcommand)]
        command: Secret,
    },
    /// Tries packs on this machine, without a relay.
    Pack {
        #[command(subcommand)]
        command: trial::Pack,
    },
    /// Compiles the component on stdin; the agent runs this for itself.
    #[command(name = crate::packs::COMPILE, hide = true)]
    Compile,
}

impl Command {
    /// What is logged unless RUST_LOG says otherwise. Who tries a pack wants to see what it logs.
    fn level(&self) -> &'static str {
        match self {
            Command::Run => "info",
            Command::Pack { .. } => "warn,pack=debug",
            _ => "warn",
        }
    }
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Shows the grants in effect, pack by pack.
    Show,
    /// Says which line of agent.toml lets a pack do something or refuses it, and what to type to change that.
    ///
    /// Without ITEMs it is about the powers as a whole; with a command, about the powers its pack asks for. With ITEMs it
    /// is about just these: the words of a program to run (after --, where one begins with a dash), folders or files with
    /// rights such as /srv/data/x:w, cameras, displays, web requests such as POST https://api.example.org/x, secrets,
    /// images, commands.
    Explain {
        /// A pack's name, or sha256:DIGEST for one version of it.
        pack: String,
        /// A power, or a command such as system.run.
        what: Option<String>,
        /// What of the power: a program and its arguments, paths, cameras, displays, requests, secrets, images, commands.
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        items: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Trust {
    /// Lists the publishers whose packs are taken or refused.
    List,
    /// Takes packs that this publisher signs, in agent.toml; a running agent sees it at once.
    Publisher {
        /// Its public key of 64 digits: `relay publisher show` on its machine prints it.
        key: String,
        /// What it is called here. Default: the first digits of its fingerprint.
        #[arg(long, env = "OUTHAUL_PUBLISHER_NAME", value_name = "NAME")]
        name: Option<String>,
    },
    /// Takes packs of this publisher no more, whoever else trusts it; those that answer stop within a second.
    Remove {
        /// Its public key, or its name in agent.toml.
        publisher: String,
    },
}

#[derive(Debug, Subcommand)]
enum Secret {
    /// Sets a secret: the value is typed without being shown, or comes on stdin; a last line break is left out.
    ///
    /// It counts at the next request. Give it to a pack's requests with: agent allow PACK http HOST --header
    /// 'authorization=Bearer {secret:NAME}'; the pack never sees it then. To a pack that needs the value itself: agent allow
    /// PACK secrets NAME.
    Set {
        /// Lower-case letters, digits, `_` and `-`.
        name: String,
    },
    /// Lists names, and what they are for; never values.
    List,
    /// Removes a secret; requests that need it are denied from then on.
    Remove {
        /// Which.
        name: String,
    },
}

#[derive(Debug, Args)]
struct Pair {
    /// The relay: ws://HOST:8765 or wss://HOST. Default: the one in agent.toml.
    #[arg(long, env = "OUTHAUL_RELAY", value_name = "URL")]
    relay: Option<String>,
    /// The code `relay pair new` shows; it works once, for some minutes.
    #[arg(long, env = "OUTHAUL_CODE", hide_env_values = true, value_name = "CODE")]
    code: Option<String>,
    /// The name to ask for; the operator's word is final. Default: agent.toml's, else the host's.
    #[arg(long, env = "OUTHAUL_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The fleet's id of 64 digits: any other fleet is refused, and approval needs no code.
    #[arg(long, env = "OUTHAUL_FLEET", value_name = "FP")]
    fleet: Option<String>,
    /// A PEM file of certificate authorities for wss://, instead of the system's; kept in agent.toml.
    #[arg(long, env = "OUTHAUL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Leaves the fleet this machine belongs to for the code's.
    #[arg(long, env = "OUTHAUL_REPLACE", value_parser = FalseyValueParser::new())]
    replace: bool,
}

#[derive(Debug, Args)]
struct Grant {
    /// A pack's name, or sha256:DIGEST for one version of it.
    pack: String,
    /// process, files, kv, camera, screen, location, notify, http, secrets, containers, call, gpu or system.
    power: String,
    /// Programs (a name or an absolute path, with a shape of its arguments or without), folders, cameras (such as video0),
    /// displays (such as HDMI-1), secrets' names, commands (gpu.list, system.*), or hosts: api.example.org,
    /// *.example.net:8443, http://10.0.0.5:8080; without http:// a host is spoken to over TLS only. Images: busybox:1.36,
    /// busybox:*, ghcr.io/acme/* with all below, busybox@sha256:DIGEST.
    items: Vec<String>,
    /// Lets callers set this environment variable for programs.
    #[arg(long = "env", env = "OUTHAUL_GRANT_ENV", value_name = "NAME", value_delimiter = ',')]
    variables: Vec<String>,
    /// Lets callers start programs in this folder and below it.
    #[arg(long, env = "OUTHAUL_GRANT_CWD", value_name = "DIR")]
    cwd: Vec<String>,
    /// The longest a program, or a container, may run.
    #[arg(long, env = "OUTHAUL_GRANT_MAX_SECS", value_name = "SECONDS")]
    max_secs: Option<u64>,
    /// Grants http this method too; GET and HEAD are granted with the first host.
    #[arg(long = "method", env = "OUTHAUL_GRANT_METHOD", value_name = "METHOD", value_delimiter = ',')]
    methods: Vec<String>,
    /// Lets http reach this address or network although it is not public: 10.0.0.5, 192.168.7.0/24. Addresses of a cloud's
    /// metadata service are named one by one.
    #[arg(long, env = "OUTHAUL_GRANT_PRIVATE", value_name = "ADDRESS", value_delimiter = ',')]
    private: Vec<String>,
    /// Adds this header to http's requests to the hosts named here, over whatever the pack sets; {secret:NAME} in it stands
    /// for a secret.
    #[arg(long = "header", env = "OUTHAUL_GRANT_HEADER", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// How many of each named program may run at once, or how many containers of the pack; 4 of these otherwise.
    #[arg(long, env = "OUTHAUL_GRANT_CONCURRENT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrent: Option<u32>,
    /// MiB a run of a named program may send before it is killed.
    #[arg(long, env = "OUTHAUL_GRANT_OUTPUT_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    output_mib: Option<u64>,
    /// What the pack calls the folder; its own path otherwise.
    #[arg(long, env = "OUTHAUL_GRANT_AT", value_name = "PATH")]
    at: Option<String>,
    /// MiB the folders may hold while the pack adds to them, what is there already included.
    #[arg(long, env = "OUTHAUL_GRANT_MAX_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    max_mib: Option<u64>,
    /// KiB of values the pack may keep; 1024 otherwise.
    #[arg(long, env = "OUTHAUL_GRANT_MAX_KIB", value_name = "KIB", value_parser = clap::value_parser!(u64).range(1..=kv::MOST_KIB))]
    max_kib: Option<u64>,
    /// Lets the pack know where this machine is to a tenth of a degree only, about 11 km.
    #[arg(long, env = "OUTHAUL_GRANT_COARSE", value_parser = FalseyValueParser::new())]
    coarse: bool,
    /// Lets containers see this folder of the machine; with :w behind it they may change it, and leave files of root there.
    #[arg(long = "mount", env = "OUTHAUL_GRANT_MOUNT", value_name = "DIR[:w]")]
    mounts: Vec<String>,
    /// Lets containers join this network, such as bridge; they have none otherwise. The machine's own cannot be granted.
    #[arg(long = "network", env = "OUTHAUL_GRANT_NETWORK", value_name = "NAME", value_delimiter = ',')]
    networks: Vec<String>,
    /// Leaves root in containers this capability, such as CHOWN or SETUID; it has none otherwise.
    #[arg(long = "capability", env = "OUTHAUL_GRANT_CAPABILITY", value_name = "NAME", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// GPUs that the pack's containers may have, all together; each is one container's at a time.
    #[arg(long, env = "OUTHAUL_GRANT_GPUS", value_name = "N")]
    gpus: Option<u32>,
    /// MiB of memory one container may have; 1024 otherwise.
    #[arg(long, env = "OUTHAUL_GRANT_MEMORY_MIB", value_name = "MIB")]
    memory_mib: Option<u32>,
    /// Processors one container may use, such as 0.5; 1 otherwise.
    #[arg(long, env = "OUTHAUL_GRANT_CPUS", value_name = "N")]
    cpus: Option<f64>,
    /// Lets images be fetched that are not on this machine.
    #[arg(long, env = "OUTHAUL_GRANT_PULL", value_parser = FalseyValueParser::new())]
    pull: bool,
}

impl Grant {
    fn power(&self) -> Result<Power, Failure> {
        Power::parse(&self.power).ok_or_else(|| {
            Failure::new(Code::BadUsage, format!("there is no power `{}`", self.power.escape_debug()))
                .hint(format!("the powers are {}", explain::names()))
        })
    }

    fn items(&self) -> Items {
        let web = Web { methods: self.methods.clone(), private: self.private.clone(), headers: self.headers.clone() };
        let room = Room {
            mounts: self.mounts.clone(),
            networks: self.networks.clone(),
            capabilities: self.capabilities.clone(),
            gpus: self.gpus,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            pull: self.pull,
        };
        Items {
            items: self.items.clone(),
            env: self.variables.clone(),
            cwd: self.cwd.clone(),
            max_secs: self.max_secs,
            concurrent: self.concurrent,
            output_mib: self.output_mib,
            at: self.at.clone(),
            max_mib: self.max_mib,
            max_kib: self.max_kib,
            coarse: self.coarse,
            web,
            room,
        }
    }
}

/// Runs what was typed. Everything a process has to do before its first thread is done here.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &words),
    };
    // Before anything else: the child sets limits on itself and must not carry a runtime or a log.
    if matches!(cli.command, Command::Compile) {
        return outhaul_host::compile_child();
    }
    outhaul_home::log::start(cli.command.level(), cli.log_json);
    if let Command::Pack { command } = &cli.command {
        return ExitCode::from(trial::main(command, cli.home.clone(), cli.json));
    }
    match act(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure, cli.json),
    }
}

/// A line that makes no sense, or that asks for help.
fn usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    // The same words for "no" as the flag's own parser has.
    let no = |value: &str| matches!(value.to_lowercase().as_str(), "" | "n" | "no" | "f" | "false" | "off" | "0");
    let json = words.iter().any(|word| word == "--json") || std::env::var("OUTHAUL_JSON").is_ok_and(|value| !no(&value));
    let nothing = matches!(error.kind(), ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    if error.use_stderr() && json {
        let text = error.to_string();
        // What is missing stands below the first line.
        let line = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
        let message = if nothing { "which command? none is named" } else { line.trim_start_matches("error: ") };
        return fail(&Failure::new(Code::BadUsage, message).hint("`--help` shows the grammar"), true);
    }
    if nothing {
        eprint!("{}", help(words));
    } else {
        // A reader that is gone wants no help.
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(Code::BadUsage.exit()) } else { ExitCode::SUCCESS }
}

/// The help of the deepest command that the words name.
fn help(words: &[OsString]) -> StyledStr {
    let mut root = Cli::command();
    root.build();
    let mut at = &mut root;
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if at.find_subcommand(word).is_some() {
            at = at.find_subcommand_mut(word).expect("just found");
        }
    }
    at.render_help()
}

/// Tells a failure, as JSON to programs; its code is the exit status.
fn fail(failure: &Failure, json: bool) -> ExitCode {
    if json {
        print(&json!({ "ok": false, "error": failure.to_json(None) }).to_string());
    } else {
        eprint!("{}", told(failure));
    }
    ExitCode::from(failure.code.exit())
}

/// A failure as people read it.
fn told(failure: &Failure) -> String {
    let hint = failure.hint.as_deref().map_or_else(String::new, |hint| format!("  hint: {}\n", escape_control_lines(hint)));
    format!("error: {}\n{hint}", escape_control_lines(&failure.message))
}

/// A line of data, at once. A reader that went away is not our failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
}

fn act(cli: &Cli) -> Result<(), Failure> {
    let home = Home::find(cli.home.clone())?;
    match &cli.command {
        Command::Pair(wish) => block_on(1, pair(&home, wish, cli.json)),
        Command::Run => run(&home),
        Command::Status => {
            let status = show::Status::read(&home)?;
            print(&if cli.json { status.json().to_string() } else { status.text() });
            Ok(())
        }
        Command::Allow(grant) => change(&home, cli.json, grant, true),
        Command::Deny(grant) => change(&home, cli.json, grant, false),
        Command::Policy { command: Some(Policy::Explain { pack, what, items }) } => {
            let explained = explain::explain(&home, pack, what.as_deref(), items)?;
            print(&if cli.json { explained.json().to_string() } else { explained.text() });
            Ok(())
        }
        Command::Policy { .. } => {
            let shown = show::Effective::read(&home)?;
            print(&if cli.json { shown.json().to_string() } else { shown.text() });
            Ok(())
        }
        Command::Trust { command } => trust(&home, cli.json, command.as_ref()),
        Command::Secret { command } => secret(&home, command, cli.json),
        Command::Pack { .. } | Command::Compile => Err(Failure::new(Code::Internal, "handled before")),
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build().map_err(|error| Failure::new(Code::Internal, format!("start the runtime: {error}")))
}

fn block_on(threads: usize, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime(threads)?;
    let result = runtime.block_on(work);
    // What still blocks (a dead network mount) must not keep the process.
    runtime.shutdown_background();
    result
}

fn run(home: &Home) -> Result<(), Failure> {
    // Refused before the lock is made: `agent run` on a fresh machine should say what to do.
    Membership::load(home)?;
    let _lock = Lock::take(&home.agent()?.join("lock"), "agent run")?;
    block_on(0, async {
        let shutdown = CancellationToken::new();
        let stopping = tokio::spawn(stop_on_signal(shutdown.clone()));
        // On a worker, not on this thread: a call then goes from the socket to its answer without waking another one.
        let home = home.clone();
        let result = tokio::spawn(async move { crate::run::run(&home, shutdown).await }).await;
        stopping.abort();
        result.unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("the agent's main task ended: {error}"))))
    })
}

/// SIGTERM and SIGINT ask for an orderly end; a second one does not wait for it.
async fn stop_on_signal(shutdown: CancellationToken) {
    for number in 0.. {
        if let Err(error) = signal().await {
            tracing::error!(%error, "cannot listen for signals");
            return;
        }
        if number > 0 {
            std::process::exit(Code::Cancelled.exit().into());
        }
        tracing::info!("stopping");
        shutdown.cancel();
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

async fn pair(home: &Home, typed: &Pair, json: bool) -> Result<(), Failure> {
    let wish = Wish {
        relay: typed.relay.clone(),
        code: typed.code.clone(),
        name: typed.name.clone(),
        fleet: typed.fleet.clone(),
        ca: typed.ca.clone(),
        replace: typed.replace,
    };
    let mut news = |news: News<'_>| tell(&news, json);
    let paired = tokio::select! {
        paired = pair::pair(home, &wish, &mut news) => paired?,
        stopped = signal() => {
            stopped.map_err(|error| Failure::new(Code::Internal, format!("listen for signals: {error}")))?;
            return Err(Failure::new(Code::Cancelled, "the pairing was given up; nothing was stored"));
        }
    };
    let (node, fleet, relay) = (paired.node.to_string(), paired.fleet.to_string(), paired.relay.to_string());
    if json {
        print(
            &json!({ "node": node, "name": paired.name, "fleet": fleet, "relay": relay, "again": paired.again, "heard": paired.heard })
                .to_string(),
        );
    } else {
        let again = if paired.again { "paired again" } else { "paired" };
        print(&format!("{again}: {} ({})\nfleet:  {fleet}\nrelay:  {relay}", paired.name, paired.node.short()));
        eprintln!("next: agent run");
    }
    if !paired.heard {
        eprintln!("the operator may not have heard of it: `relay nodes` shows this machine once `agent run` connects");
    }
    Ok(())
}

/// What a person needs while they wait. The digits are data: a script may show them elsewhere.
fn tell(news: &News<'_>, json: bool) {
    match news {
        News::Reached { relay } => eprintln!("reached {relay}"),
        News::Pending { request, expires_at, code, node } if json => {
            print(&json!({ "request": request, "code": code, "node": node.to_string(), "expires_at": expires_at.0 }).to_string());
        }
        News::Pending { request, code, node, .. } => {
            let request = escape_control(request);
            match code {
                Some(code) => {
                    print(code);
                    eprintln!("an operator approves this machine with these digits: relay pair approve {request}");
                }
                None => eprintln!("an operator approves this machine by its id: relay pair approve {request} --node {node}"),
            }
            eprintln!("waiting; Ctrl-C gives up");
        }
    }
}

fn secret(home: &Home, command: &Secret, json: bool) -> Result<(), Failure> {
    let vault = Vault::new(home);
    let (name, done) = match command {
        Secret::List => return secrets(home, &vault, json),
        Secret::Set { name } => {
            vault.check(name)?;
            let before = vault.set(name, &vault::read_value(name)?)?;
            (name, if before { "replaced" } else { "set" })
        }
        Secret::Remove { name } if vault.remove(name)? => (name, "removed"),
        Secret::Remove { name } => {
            let text = format!("no secret `{}` is kept on this machine", name.escape_debug());
            return Err(Failure::new(Code::BadUsage, text).hint("see what is kept: agent secret list"));
        }
    };
    print(&if json { json!({ "ok": true, "secret": name, "done": done }).to_string() } else { format!("{name}: {done}") });
    Ok(())
}

fn secrets(home: &Home, vault: &Vault, json: bool) -> Result<(), Failure> {
    let (names, uses) = (vault.names()?, vault::uses(&AgentConfig::load(home)?));
    let used = |name: &String| uses.get(name).cloned().unwrap_or_default();
    if json {
        let missing: Vec<&String> = uses.keys().filter(|name| !names.contains(name)).collect();
        let list: Vec<Json> = names.iter().map(|name| json!({ "name": name, "used_by": used(name) })).collect();
        print(&json!({ "secrets": list, "missing": missing }).to_string());
        return Ok(());
    }
    for name in &names {
        let used = used(name);
        print(&format!("{name}  {}", if used.is_empty() { "not used".to_owned() } else { used.join(", ") }));
    }
    for (name, used) in uses.iter().filter(|(name, _)| !names.contains(name)) {
        eprintln!("{name} is not set, but used by {}; agent secret set {name}", used.join(", "));
    }
    Ok(())
}

fn change(home: &Home, json: bool, grant: &Grant, allow: bool) -> Result<(), Failure> {
    let power = grant.power()?;
    let change = show::change(home, &grant.pack, power, &grant.items(), allow)?;
    for note in &change.notes {
        eprintln!("{note}");
    }
    if json {
        let file = home.join(FILE);
        print(
            &Json::from_iter([
                ("ok", json!(true)),
                ("changed", json!(change.changed)),
                ("file", json!(file)),
                ("pack", change.now.json()),
                ("notes", json!(change.notes)),
            ])
            .to_string(),
        );
    } else {
        print(&change.now.text());
    }
    Ok(())
}

fn trust(home: &Home, json: bool, command: Option<&Trust>) -> Result<(), Failure> {
    let said = match command {
        None | Some(Trust::List) => None,
        Some(Trust::Publisher { key, name }) => Some(trust::trust(home, key, name.as_deref())?),
        Some(Trust::Remove { publisher }) => Some(trust::remove(home, publisher)?),
    };
    let now = trust::Trusted::read(home)?;
    match said {
        None => print(&if json { now.json().to_string() } else { now.text() }),
        Some(said) if json => print(&json!({ "ok": true, "said": said, "publishers": now.json() }).to_string()),
        Some(said) => print(&said),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("agent").chain(words.split_whitespace()))
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contracts_grammar_is_taken() {
        for words in [
            "pair --relay ws://127.0.0.1:8765 --code 482913 --name bench-1",
            "pair --relay wss://relay.example --fleet 00",
            "--home /tmp/h run",
            "run --home /tmp/h",
            "status --json",
            "allow system process uname sh",
            "allow system process uname --env LANG,TZ --cwd /srv --max-secs 60",
            "allow camera camera",
            "deny camera camera video0",
            "allow shots http api.example.org *.example.net:8443 --method POST,PUT --private 10.0.0.5 --header a=b",
            "allow shots secrets api_token",
            "secret set api_token",
            "secret list",
            "secret remove api_token --json",
            "policy",
            "policy show",
            "trust",
            "trust list",
            "trust publisher 00 --name acme",
            "trust remove acme",
            "pack run thermal.wasm thermal.read zone=cpu --grant process=df,uname --grant camera --json",
            "pack test thermal",
            "policy explain system",
            "policy explain system system.run uname -a",
            "policy explain system process uname -a --all",
            "allow wasi files /srv/data:rl --at /data --max-mib 5",
            "allow system process uname --concurrent 2 --output-mib 5",
            "allow thermal kv --max-kib 65536",
            "allow watch location --coarse",
            "allow watch screen HDMI-1",
            "allow watch notify",
            "allow work containers busybox ghcr.io/acme/* --mount /srv/data --mount /srv/out:w --gpus 1 --network bridge --memory-mib 512 --cpus 0.5 --pull",
            "compile-pack",
        ] {
            parse(words).expect(words);
        }
        for words in [
            "",
            "pair --code",
            "allow system",
            "polic",
            "run now",
            "secret set",
            "secret set token hunter2",
            "policy explain",
            "allow a process b --concurrent 0",
            "allow a kv --max-kib 65537",
        ] {
            assert_eq!(parse(words).expect_err(words).exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn every_flag_has_its_environment_twin() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                let id = argument.get_id().as_str();
                let twin = argument.get_env().and_then(|name| name.to_str()).unwrap_or_default();
                assert!(matches!(id, "help" | "version") || twin.starts_with("OUTHAUL_"), "--{id} of {}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn help_reads_well() {
        // What is set where the test runs must not show.
        let blank = |argument: clap::Arg| argument.hide_env_values(true);
        let mut command = Cli::command().term_width(100).mut_args(blank).mut_subcommands(|part| part.mut_args(blank));
        command.build();
        let mut all = vec![command.render_long_help().to_string()];
        for name in ["pair", "allow", "trust", "secret"] {
            let part = command.find_subcommand_mut(name).expect("is there");
            all.push(part.render_long_help().to_string());
        }
        insta::assert_snapshot!(all.join("\n----\n"));
    }

    #[test]
    fn failures_are_two_lines_without_control_characters() {
        let failure = Failure::new(Code::NotPaired, "the code\u{1b}[2J is wrong").hint("make a new one");
        insta::assert_snapshot!(told(&failure));
        assert_eq!(failure.code.exit(), 3);
    }
}
