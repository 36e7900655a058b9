//! The command line: grammar in [`args`], one file per group of commands, one place that prints. Each command gives its
//! exit status; a failure anywhere ends in the same form, and its code decides the status.

pub mod args;
mod author;
mod call;
mod deployed;
mod describe;
mod invoke;
mod many;
mod nodes;
mod oci;
mod operators;
mod pack;
mod pair;
mod publishers;
mod rollout;
mod run;
mod sign;
mod time;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use outhaul_console::how::How;
use outhaul_console::{ending, interrupts, lanes, output};
use outhaul_home::Home;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::native;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use self::args::{Cli, Command, Global, Nodes, NodesCommand, Operator, Pack, PackDeploy, Pair, Serve};
use self::output::Output;
use crate::config::ServeOptions;
use crate::operator::{Dialer, Room, Seen, Session};

/// What every command has at hand.
#[derive(Debug)]
struct Context {
    global: Global,
    home: Home,
    room: Room,
    out: Output,
}

impl Context {
    fn dialer(&self) -> Result<Arc<Dialer>, Failure> {
        Dialer::new(self.room.clone(), self.global.relay.as_deref(), self.global.ca.clone()).map(Arc::new)
    }

    async fn session(&self) -> Result<Session, Failure> {
        Session::open(self.dialer()?).await
    }

    async fn with_node(&self, text: &str) -> Result<(Session, Seen), Failure> {
        Session::with_node(self.dialer()?, text).await
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error, &words)),
    };
    let out = Output { json: cli.global.json };
    let ours = matches!(cli.command, Command::Run(_)).then_some(run::OURS);
    let status = start(cli, out).unwrap_or_else(|failure| {
        let status = out.fail(&failure);
        ours.filter(|_| failure.code != Code::Cancelled).unwrap_or(status)
    });
    ExitCode::from(status)
}

/// A line that makes no sense. `relay run` has its own status for it, since 2 may be the program's.
fn usage(error: &clap::Error, words: &[OsString]) -> u8 {
    let shown = !error.use_stderr();
    let before_program = || words.iter().take_while(|word| *word != "--");
    let run = subcommand(before_program()) == Some("run");
    // Most often the two dashes were left out, which the grammar alone does not tell.
    let dashes =
        (run && before_program().count() == words.len()).then_some("the program comes after two dashes: relay run NODE -- PROGRAM …");
    if !shown && asks_json(before_program()) {
        let failure = Failure::new(Code::BadUsage, usage_line(error));
        Output { json: true }.fail(&failure.hint(dashes.unwrap_or("`--help` shows the grammar")));
    } else if error.kind() == ErrorKind::MissingSubcommand {
        // What is set in the environment makes it an error of the grammar; the person just wants to know what there is.
        Output { json: false }.talk(help(before_program()).trim_end());
    } else {
        // A reader that is gone wants no help.
        let _ = error.print();
        if let Some(dashes) = dashes.filter(|_| !shown) {
            Output { json: false }.talk(&format!("  hint: {dashes}"));
        }
    }
    match shown {
        true => 0,
        false if run => run::OURS,
        false => Code::BadUsage.exit(),
    }
}

fn asks_json<'w>(mut words: impl Iterator<Item = &'w OsString>) -> bool {
    // The same words for "no" as the flag's own parser has.
    let no = |value: &str| matches!(value.to_lowercase().as_str(), "" | "n" | "no" | "f" | "false" | "off" | "0");
    words.any(|word| word == "--json") || std::env::var("OUTHAUL_JSON").is_ok_and(|value| !no(&value))
}

/// What is wrong with a line, on one line.
fn usage_line(error: &clap::Error) -> String {
    match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "which command? none is named".to_owned(),
        // What is missing stands below the first line.
        _ => {
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
        }
    }
}

/// The help of the deepest command that the words name.
fn help<'w>(words: impl Iterator<Item = &'w OsString>) -> String {
    let mut root = Cli::command();
    root.build();
    let mut at = &mut root;
    for word in words.skip(1).filter_map(|word| word.to_str()) {
        if at.find_subcommand(word).is_some() {
            at = at.find_subcommand_mut(word).expect("just found");
        }
    }
    at.render_help().to_string()
}

/// The first word that is neither a flag nor a global flag's value.
fn subcommand<'w>(words: impl Iterator<Item = &'w OsString>) -> Option<&'w str> {
    let mut words = words.skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        match word {
            "--relay" | "--timeout" | "--home" | "--ca" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            word => return Some(word),
        }
    }
    None
}

fn start(cli: Cli, out: Output) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    let home = Home::find(global.home.clone())?;
    let context = Context { room: Room::of(&home), home, global, out };
    let log_json = matches!(&command, Command::Serve(serve) if serve.log_json);
    log(matches!(command, Command::Serve(_)), log_json);
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "relay", &mut std::io::stdout());
            Ok(0)
        }
        Command::Init => operators::init(&context),
        Command::Serve(how) => serve(&context, how),
        command => {
            let runtime = runtime(Builder::new_current_thread().enable_all())?;
            let status = runtime.block_on(within(&context, command));
            // A thread that reads stdin cannot be waited for.
            runtime.shutdown_background();
            status
        }
    }
}

fn runtime(builder: &mut Builder) -> Result<Runtime, Failure> {
    builder.build().map_err(|error| Failure::new(Code::Internal, format!("start the runtime: {error}")))
}

/// A command's own deadline is `--timeout` around all of it, except where the call carries it to the node.
async fn within(context: &Context, command: Command) -> Result<u8, Failure> {
    let carried = matches!(
        command,
        Command::Invoke(_)
            | Command::Run(_)
            | Command::Nodes(Nodes { command: Some(NodesCommand::Invoke { .. }) })
            | Command::Pack(_)
            | Command::Publisher(_)
            | Command::Ping { .. }
    );
    match context.global.timeout.filter(|_| !carried) {
        None => dispatch(context, command).await,
        Some(limit) => tokio::time::timeout(limit, dispatch(context, command)).await.unwrap_or_else(|_| {
            Err(Failure::new(Code::Deadline, format!("it took longer than {} s", limit.as_secs_f64()))
                .hint("give it more time with --timeout"))
        }),
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init | Command::Serve(_) | Command::Completions { .. } => unreachable!("these need no link and were run before"),
        Command::Use(how) => operators::use_relay(context, &how).await,
        Command::Pair(command) => pair(context, command).await,
        Command::Nodes(Nodes { command }) => nodes(context, command.unwrap_or(NodesCommand::List)).await,
        Command::Ping { node } => nodes::ping(context, &node).await,
        Command::Invoke(how) => call(context, &how.node, &how.command, &how.how, &how.args).await,
        Command::Run(how) => shaped(context, run::run(context, &how).await, Some(run::OURS)),
        Command::Pack(command) => pack(context, command).await,
        Command::Publisher(command) => publishers::publisher(context, command).await,
        Command::Operator(command) => operator(context, command).await,
    }
}

/// A call that fails before it is on its way has the shape of a call all the same.
fn shaped(context: &Context, done: Result<u8, Failure>, ours: Option<u8>) -> Result<u8, Failure> {
    match done {
        Err(failure) if context.out.json => {
            context.out.json(&ending::failed_json(&failure));
            Ok(ours.unwrap_or(failure.code.exit()))
        }
        other => other,
    }
}

async fn call(context: &Context, node: &str, command: &str, how: &How, args: &[String]) -> Result<u8, Failure> {
    shaped(context, invoke::invoke(context, node, command, how, args).await, None)
}

async fn pair(context: &Context, command: Pair) -> Result<u8, Failure> {
    match command {
        Pair::New(how) => pair::new(context, &how).await,
        Pair::List => pair::list(context).await,
        Pair::Approve(how) => pair::approve(context, &how).await,
        Pair::Reject { request } => pair::reject(context, &request).await,
    }
}

async fn nodes(context: &Context, command: NodesCommand) -> Result<u8, Failure> {
    match command {
        NodesCommand::List => nodes::list(context).await,
        NodesCommand::Describe { node } => describe::describe(context, &node).await,
        NodesCommand::Rename { node, name } => nodes::rename(context, &node, &name).await,
        NodesCommand::Label { node, labels } => nodes::label(context, &node, &labels).await,
        NodesCommand::Remove { node } => nodes::remove(context, &node).await,
        NodesCommand::Invoke { node, command, how } => call(context, &node, &command, &how, &[]).await,
    }
}

async fn deploy(context: &Context, how: PackDeploy) -> Result<u8, Failure> {
    if !how.to.is_empty() {
        return rollout::deploy(context, &how).await;
    }
    let PackDeploy { pack, nodes, unsigned, downgrade, .. } = how;
    pack::deploy(context, &pack, &nodes, sign::Shipping { unsigned, downgrade }).await
}

async fn pack(context: &Context, command: Pack) -> Result<u8, Failure> {
    match command {
        Pack::New(how) => author::new(context, &how),
        Pack::Build(how) => author::build(context, &how),
        Pack::Inspect { file } => author::inspect(context, &file),
        Pack::Push { file, to: None, .. } => rollout::push(context, &file).await,
        Pack::Push { file, to: Some(to), unsigned } => oci::push(context, &file, to.parse()?, unsigned).await,
        Pack::Pull(how) => oci::pull(context, &how).await,
        Pack::Deploy(how) => deploy(context, PackDeploy { pack: oci::local(context, &how.pack).await?, ..how }).await,
        Pack::Status { pack } => deployed::status(context, pack.as_deref()).await,
        Pack::Sign(how) => sign::sign(context, &how),
        Pack::Verify { file, publisher } => sign::verify(context, &file, publisher.as_deref()),
        Pack::List { node } => pack::list(context, &node).await,
        Pack::Rollback(how) => match &how.second {
            Some(second) => pack::by_name(context, &how.first, native::ROLLBACK, second).await,
            None => rollout::rollback(context, &how).await,
        },
        Pack::Remove(how) => match &how.second {
            Some(second) => pack::by_name(context, &how.first, native::REMOVE, second).await,
            None => rollout::remove(context, &how).await,
        },
    }
}

async fn operator(context: &Context, command: Operator) -> Result<u8, Failure> {
    match command {
        Operator::Show => operators::show(context),
        Operator::Add { name, key } => operators::add(context, &name, &key),
        Operator::Grant(how) => operators::grant(context, &how),
        Operator::Accept { grant } => operators::accept(context, &grant),
        Operator::Grants => operators::grants(context),
        Operator::Revoke { id } => operators::take_back(context, &id).await,
    }
}

fn serve(context: &Context, how: Serve) -> Result<u8, Failure> {
    let fleet = how.fleet.as_deref().map(str::parse).transpose().map_err(|error| {
        Failure::new(Code::BadUsage, format!("`--fleet`: {error}")).hint("`relay init` printed the fleet's key on its owner's machine")
    })?;
    let options =
        ServeOptions { listen: how.listen, fleet, tls_cert: how.tls_cert, tls_key: how.tls_key, allow_plaintext: how.allow_plaintext };
    let runtime = runtime(Builder::new_multi_thread().enable_all())?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (stop, mut interrupts) = (shutdown.clone(), interrupts::Interrupts::new()?);
        let watching = tokio::spawn(async move {
            interrupts.next().await;
            stop.cancel();
            // The second time nobody wants to wait for a drain.
            interrupts.next().await;
            std::process::exit(i32::from(Code::Cancelled.exit()));
        });
        let ended = crate::serve::run(&context.home, options, shutdown).await;
        watching.abort();
        ended
    })?;
    Ok(0)
}

/// Logs to stderr. A one-shot command that nobody asked to log skips even the set-up.
fn log(server: bool, json: bool) {
    if server || outhaul_home::log::asked().is_some() {
        outhaul_home::log::start("info", json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(line: &str) -> u8 {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        usage(&Cli::try_parse_from(&words).expect_err(line), &words)
    }

    #[test]
    fn bad_usage_is_2_and_255_for_run() {
        assert_eq!(status("relay nodez"), 2);
        assert_eq!(status("relay --timeout 5 run bench-1"), 255);
        assert_eq!(status("relay --help"), 0);
        assert_eq!(status("relay invoke run"), 2);
    }
}
