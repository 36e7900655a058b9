//! The grammar. Every flag has its environment twin `OUTHAUL_…`; a test holds them together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use outhaul_console::how::{How, duration};

const EXAMPLES: &str = "\
Examples:
  relay serve                               listen on 127.0.0.1:8765; makes the keys
  relay pair new                            a code for one machine
  relay nodes                               who is there
  relay invoke bench-1 gpu.list             a command of a pack
  relay run bench-1 -- df -h                a program, if the machine's owner allowed it
  relay pack deploy thermal.wasm bench-1    teach it something new

Exit status: 0 done, 1 the command failed, 2 bad usage, parameters or
configuration, 3 denied, 4 node unknown, ambiguous or offline, 5 deadline,
6 relay or registry unreachable or refused, 7 something did not verify,
8 node or pack failed, 130 cancelled. `relay run` alone: the program's status,
128 + its signal, 255 for all of these.
stdout is data, stderr is talk. RUST_LOG=debug tells more.";

/// Outhaul's relay, and its operator's command line.
#[derive(Debug, Parser)]
#[command(name = "relay", version, max_term_width = 120, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// for every command
    #[command(flatten)]
    pub global: Global,
    /// what to do
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The relay: ws://HOST:PORT or wss://HOST. Else operator.toml's, else the one `relay serve` runs from this home
    #[arg(long, global = true, value_name = "URL", env = "OUTHAUL_RELAY")]
    pub relay: Option<String>,
    /// Prints JSON for programs, failures included
    #[arg(long, global = true, env = "OUTHAUL_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// How long it may take: 500ms, 60 (seconds), 5m, 1h. 60 s for `invoke`, no limit for `run`; the node's own policy caps both
    #[arg(long, global = true, value_name = "T", env = "OUTHAUL_TIMEOUT", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Where keys and state lie. Default: $XDG_DATA_HOME/outhaul, else ~/.local/share/outhaul
    #[arg(long, global = true, value_name = "DIR", env = "OUTHAUL_HOME")]
    pub home: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust for wss:// instead of the system's
    #[arg(long, global = true, value_name = "FILE", env = "OUTHAUL_CA")]
    pub ca: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a fleet's keys on its owner's machine; relays elsewhere then need no secret
    Init,
    /// Runs a relay; the first run on a machine without a fleet sets one up and says what it made
    Serve(Serve),
    /// Chooses the relay to use; on the owner's machine, signs it into the fleet's list
    Use(Use),
    /// Brings new machines in
    #[command(subcommand)]
    Pair(Pair),
    /// The fleet's machines; alone, lists them
    Nodes(Nodes),
    /// Asks a node's agent for a sign of life
    Ping {
        /// Id, name or the start of an id
        node: String,
    },
    /// Runs one command of a node's packs and shows its result
    Invoke(Invoke),
    /// Runs a program on a node, as `system.run`: its output as it comes, its exit status
    Run(Run),
    /// Makes, signs and ships packs
    #[command(subcommand)]
    Pack(Pack),
    /// This home's key that signs packs, and whose packs nodes take
    #[command(subcommand)]
    Publisher(Publisher),
    /// This operator, and what it grants to others
    #[command(subcommand)]
    Operator(Operator),
    /// Prints a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// `relay serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one, which relay/address then tells. Default: 127.0.0.1:8765
    #[arg(long, value_name = "ADDRESS", env = "OUTHAUL_LISTEN", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The fleet's public key, 64 digits: a relay that only knows this holds no secret of the fleet's
    #[arg(long, value_name = "KEY", env = "OUTHAUL_FLEET")]
    pub fleet: Option<String>,
    /// The TLS certificate chain, PEM
    #[arg(long, value_name = "FILE", env = "OUTHAUL_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", env = "OUTHAUL_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Listens without TLS beyond this machine: only where something else protects the path
    #[arg(long, env = "OUTHAUL_ALLOW_PLAINTEXT", value_parser = FalseyValueParser::new())]
    pub allow_plaintext: bool,
    /// Writes the log as JSON lines
    #[arg(long, env = "OUTHAUL_LOG_JSON", value_parser = FalseyValueParser::new())]
    pub log_json: bool,
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:8765, 0.0.0.0:8765 or [::]:8765".to_owned())
}

/// `relay use`.
#[derive(Debug, Args)]
pub struct Use {
    /// The relay's URL
    pub url: String,
    /// The relay's key or at least 20 digits of its fingerprint, as `relay serve` printed them there
    #[arg(long, value_name = "FP", env = "OUTHAUL_RELAY_KEY")]
    pub relay_key: Option<String>,
}

/// `relay pair`.
#[derive(Debug, Subcommand)]
pub enum Pair {
    /// Makes a code, shows it and waits for the machine it is typed at
    New(PairNew),
    /// Machines that wait for approval
    List,
    /// Lets a waiting machine in, after its digits were compared
    Approve(PairApprove),
    /// Turns a waiting machine away
    Reject {
        /// Its request, or the name it gave
        request: String,
    },
}

/// `relay pair new`.
#[derive(Debug, Args)]
pub struct PairNew {
    /// How long the code lives. Default: 300 s
    #[arg(long, value_name = "S", env = "OUTHAUL_TTL", value_parser = duration)]
    pub ttl: Option<Duration>,
    /// Leaves the code with the relay and returns at once; needs a relay that holds an enrol grant
    #[arg(long, env = "OUTHAUL_DETACH", value_parser = FalseyValueParser::new())]
    pub detach: bool,
    /// The node's name, whatever the machine offers
    #[arg(long, value_name = "NAME", env = "OUTHAUL_NAME", conflicts_with = "replace")]
    pub name: Option<String>,
    /// Gives the new machine this node's name and labels, and revokes the old one
    #[arg(long, value_name = "NODE", env = "OUTHAUL_REPLACE", conflicts_with = "detach")]
    pub replace: Option<String>,
    /// Ten characters instead of six digits
    #[arg(long, env = "OUTHAUL_LONG", value_parser = FalseyValueParser::new(), conflicts_with = "detach")]
    pub long: bool,
}

/// `relay pair approve`.
#[derive(Debug, Args)]
pub struct PairApprove {
    /// The request, or the name the machine gave
    pub request: String,
    /// The digits the machine shows; asked for when absent
    #[arg(long, value_name = "DIGITS", env = "OUTHAUL_CODE")]
    pub code: Option<String>,
    /// The machine's fingerprint, known ahead, instead of digits: at least 20 of it; the agent was started with --fleet
    #[arg(long, value_name = "FP", env = "OUTHAUL_NODE_KEY")]
    pub node: Option<String>,
    /// The node's name, whatever the machine offers
    #[arg(long, value_name = "NAME", env = "OUTHAUL_NAME")]
    pub name: Option<String>,
}

/// `relay nodes`.
#[derive(Debug, Args)]
pub struct Nodes {
    /// what of them
    #[command(subcommand)]
    pub command: Option<NodesCommand>,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// Lists them
    List,
    /// Platform, facts, packs, and every command with its doc and types
    Describe {
        /// Id, name or the start of an id
        node: String,
    },
    /// Signs a new name into a node's certificate
    Rename {
        /// Id, name or the start of an id
        node: String,
        /// The new name: lower-case letters, digits, dashes
        name: String,
    },
    /// Signs labels into a node's certificate
    Label {
        /// Id, name or the start of an id
        node: String,
        /// label=value, or label= to take one away
        #[arg(required = true, value_name = "LABEL=VALUE")]
        labels: Vec<String>,
    },
    /// Revokes a node's key and forgets it
    Remove {
        /// Id, name or the start of an id
        node: String,
    },
    /// `relay invoke` with names for its parts
    Invoke {
        /// Id, name or the start of an id
        #[arg(long, value_name = "NODE", env = "OUTHAUL_NODE")]
        node: String,
        /// The command, INTERFACE.FUNCTION
        #[arg(long, value_name = "COMMAND", env = "OUTHAUL_COMMAND")]
        command: String,
        /// Parameters, lanes, output
        #[command(flatten)]
        how: How,
    },
}

/// `relay invoke`.
#[derive(Debug, Args)]
#[command(after_help = "\
Parameters are read by their type: count=3, facing=front, data=@photo.jpg (a
file's bytes or text); a repeated name fills a list; a value that starts with
[ or { is JSON. `relay nodes describe NODE` lists commands and their types.

Examples:
  relay invoke bench-1 system.info --json
  relay invoke bench-1 camera.snap facing=front max_width=1280 --out photo.jpg")]
pub struct Invoke {
    /// Id, name or the start of an id
    pub node: String,
    /// The command, INTERFACE.FUNCTION
    pub command: String,
    /// Parameters, lanes, output
    #[command(flatten)]
    pub how: How,
    /// Parameters by name
    #[arg(value_name = "NAME=VALUE")]
    pub args: Vec<String>,
}

/// `relay run`.
#[derive(Debug, Args)]
#[command(after_help = "\
The program runs without a shell and in no shell's environment, if the
machine's policy allows it. stdin is sent to it unless that is a terminal.
No time limit but policy's. A lost link is taken up again; the program runs
on meanwhile. Exit status: the program's, 128 + its signal, or 255.

Examples:
  relay run bench-1 -- uname -a
  relay run bench-1 --cwd /srv -- sh -c 'for i in 1 2 3; do echo $i; done'
  tar c . | relay run bench-1 -- tar xC /srv/new")]
pub struct Run {
    /// Id, name or the start of an id
    pub node: String,
    /// Where it starts
    #[arg(long, value_name = "DIR", env = "OUTHAUL_CWD")]
    pub cwd: Option<String>,
    /// A variable for it, of those its policy allows
    #[arg(long, value_name = "NAME=VALUE", env = "OUTHAUL_ENV")]
    pub env: Vec<String>,
    /// Sends stdin also when it is a terminal
    #[arg(short = 'i', long = "stdin", env = "OUTHAUL_STDIN", value_parser = FalseyValueParser::new())]
    pub stdin: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

/// `relay pack`.
#[derive(Debug, Subcommand)]
pub enum Pack {
    /// Makes a folder for a new pack that builds as it is
    New(PackNew),
    /// Builds the component of a pack's folder
    Build(PackBuild),
    /// Shows what is in a component: commands with types and docs, powers it asks for, size, digest
    Inspect {
        /// The component, .wasm
        file: PathBuf,
    },
    /// Hands a component to the relay, for nodes to fetch, or to an OCI registry, in the layout other WebAssembly tools read
    ///
    /// The signature in FILE.cose goes with it. Where there is none, it is signed with this home's publisher key.
    /// What the relay has, NAME@VERSION means from then on. Credentials for a registry are those of `docker login`; one
    /// on this machine is spoken to without TLS.
    Push {
        /// The component, .wasm
        file: PathBuf,
        /// A registry instead of the relay: oci://HOST/REPOSITORY:TAG
        #[arg(value_name = "PLACE")]
        to: Option<String>,
        /// Pushes it to the registry without a signature
        #[arg(long, env = "OUTHAUL_UNSIGNED", value_parser = FalseyValueParser::new(), requires = "to")]
        unsigned: bool,
    },
    /// Fetches a component and its signature from an OCI registry
    Pull(PackPull),
    /// Ships a component to nodes and activates it there; calls under way end on the version they began with
    ///
    /// The signature in FILE.cose goes with it. Where there is none, it is signed with this home's publisher key,
    /// which machines trust that were paired from here.
    Deploy(PackDeploy),
    /// What deployments ask, by whose signature, and what runs on which node
    Status {
        /// The pack's name; else all that were deployed with --to
        pack: Option<String>,
    },
    /// Signs a component as its publisher: writes FILE.cose beside it; the component stays as it is
    Sign(PackSign),
    /// Checks a component against FILE.cose
    Verify {
        /// The component, .wasm
        file: PathBuf,
        /// Who must have signed it: a key, or a name known here. Else anybody known here: `relay publisher show`
        #[arg(long, value_name = "KEY", env = "OUTHAUL_PUBLISHER")]
        publisher: Option<String>,
    },
    /// A node's packs, active or not
    List {
        /// Id, name or the start of an id
        node: String,
    },
    /// Activates the version that was active before
    Rollback(PackOn),
    /// Takes a pack out; an embedded one becomes active again
    Remove(PackOn),
}

/// `relay pack deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
With nodes it is done at once, and they must be connected. With --to it is a
signed document that the relay keeps and nodes follow by themselves, also those
that are off now or get the label later; a newer one of the same pack replaces
it. What a node is told directly afterwards stands until the next document.

Examples:
  relay pack deploy thermal.wasm bench-1
  relay pack deploy thermal@1.2 --to role=edge --canary 10% --health thermal.summary")]
pub struct PackDeploy {
    /// The component, .wasm; NAME@VERSION of one that was pushed or deployed before; or oci://HOST/REPOSITORY:TAG
    #[arg(value_name = "FILE|NAME@VERSION|PLACE")]
    pub pack: String,
    /// Ids, names or starts of ids
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    pub nodes: Vec<String>,
    /// all, label=value or a node's name; a comma: both must hold; --to again: either
    #[arg(long, value_name = "SEL", env = "OUTHAUL_TO")]
    pub to: Vec<String>,
    /// So many of them first, those that are connected; the rest when it goes well there. Else they get back what they had
    #[arg(long, value_name = "N%", env = "OUTHAUL_CANARY", requires = "to", conflicts_with = "nodes", value_parser = share)]
    pub canary: Option<u8>,
    /// What must answer on each of the first, INTERFACE.FUNCTION without parameters
    #[arg(long, value_name = "COMMAND", env = "OUTHAUL_HEALTH", requires = "canary")]
    pub health: Option<String>,
    /// Sends it without a signature; nodes refuse it unless it came with their agent
    #[arg(long, env = "OUTHAUL_UNSIGNED", value_parser = FalseyValueParser::new(), conflicts_with = "to")]
    pub unsigned: bool,
    /// Installs it also where a newer version of the same publisher has been
    #[arg(long, env = "OUTHAUL_DOWNGRADE", value_parser = FalseyValueParser::new())]
    pub downgrade: bool,
}

/// `relay pack rollback` and `remove`.
#[derive(Debug, Args)]
pub struct PackOn {
    /// Id, name or the start of an id; with --to the pack's name instead
    #[arg(value_name = "NODE")]
    pub first: String,
    /// The pack's name
    #[arg(value_name = "PACK", required_unless_present = "to", conflicts_with = "to")]
    pub second: Option<String>,
    /// By a document, on all nodes that one was for: all, label=value or a node's name; --to again: either
    #[arg(long, value_name = "SEL", env = "OUTHAUL_TO")]
    pub to: Vec<String>,
}

/// `10%`, or `10`.
fn share(text: &str) -> Result<u8, String> {
    let number = text.trim_end_matches('%').parse().ok().filter(|share| (1..=99).contains(share));
    number.ok_or_else(|| "write a share of the nodes from 1% to 99%".to_owned())
}

/// `relay pack new`.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder has the pack's contract (wit/pack.wit) with one command, the code for
it, cases that try it, and a README with the commands to type next.

Example:
  relay pack new thermal --lang rust && relay pack build thermal")]
pub struct PackNew {
    /// The folder to make; its last part is the pack's name and that of its commands' interface
    pub name: PathBuf,
    /// The language: rust, c, js or python
    #[arg(long, value_name = "LANG", env = "OUTHAUL_LANG", value_parser = super::author::lang, default_value = "rust")]
    pub lang: outhaul_author::project::Lang,
}

/// `relay pack build`.
#[derive(Debug, Args)]
#[command(after_help = "\
What is needed must be installed, nothing is downloaded but what the language's
own package manager fetches: a compiler with a WebAssembly target for Rust, clang
or zig for C, @bytecodealliance/componentize-js for JavaScript, componentize-py
for Python. What is missing is named with the command that installs it.
All that is made lies in DIR/build; agent pack test DIR takes it from there.

Example:
  relay pack build thermal/ && agent pack run thermal.wasm thermal.greet")]
pub struct PackBuild {
    /// The pack's folder: the one with outhaul.toml
    pub dir: PathBuf,
    /// Where the component goes. Default: NAME.wasm here
    #[arg(long, value_name = "FILE", env = "OUTHAUL_OUT")]
    pub out: Option<PathBuf>,
}

/// `relay pack pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nobody has to trust the registry: the bytes must have the digests its manifest
names, and whose packs a node takes is that node's to say. By a digest instead of
a tag, it is always the same pack: oci://HOST/REPOSITORY@sha256:DIGEST

Example:
  relay pack pull oci://registry.example/packs/thermal:1.2.0 && relay pack verify thermal.wasm")]
pub struct PackPull {
    /// Where from: oci://HOST/REPOSITORY:TAG
    pub from: String,
    /// Where the component goes; its signature goes beside it. Default: NAME.wasm here
    #[arg(long, value_name = "FILE", env = "OUTHAUL_OUT")]
    pub out: Option<PathBuf>,
    /// Writes over another file of that name
    #[arg(long, env = "OUTHAUL_FORCE", value_parser = FalseyValueParser::new())]
    pub force: bool,
}

/// `relay pack sign`.
#[derive(Debug, Args)]
pub struct PackSign {
    /// The component, .wasm
    pub file: PathBuf,
    /// A publisher's key file. Default: operator/publisher.key in the home, made on first use
    #[arg(long, value_name = "FILE", env = "OUTHAUL_PUBLISHER_KEY")]
    pub key: Option<PathBuf>,
    /// How long it may be installed anew: 12h, 30d; what is installed stays. Default: without end
    #[arg(long = "for", value_name = "T", env = "OUTHAUL_FOR", value_parser = duration)]
    pub lasts: Option<Duration>,
}

/// `relay publisher`.
#[derive(Debug, Subcommand)]
pub enum Publisher {
    /// This home's publisher key (made on first use) and the other publishers that machines paired from here trust
    Show,
    /// Makes a new key, to which the old one hands on: grants stay, and nodes follow with the next deploy
    Rotate,
    /// Trusts a publisher: machines paired from here, and the nodes named. It needs the right `policy` there
    Trust {
        /// Its public key, from its `relay publisher show`, or a name known here
        key: String,
        /// What it is called
        #[arg(long, value_name = "NAME", env = "OUTHAUL_PUBLISHER_NAME")]
        name: Option<String>,
        /// Its file publisher.rotations: shows nodes that the key follows one they trust
        #[arg(long, value_name = "FILE", env = "OUTHAUL_ROTATIONS")]
        rotations: Option<PathBuf>,
        /// Ids, names or starts of ids
        nodes: Vec<String>,
    },
    /// Trusts a publisher no more, here and on the nodes named; what it signed stops there
    Distrust {
        /// Its public key, or a name known here
        key: String,
        /// Ids, names or starts of ids
        nodes: Vec<String>,
    },
    /// Takes a publisher's key back everywhere: what it signed stops, and nothing of it is installed again
    Revoke {
        /// Its public key, or a name known here
        key: String,
    },
}

/// `relay operator`.
#[derive(Debug, Subcommand)]
pub enum Operator {
    /// This operator's key (made on first use), its fleet and what its grants allow
    Show,
    /// Gives a name to another operator's key
    Add {
        /// The name
        name: String,
        /// Their public key, from their `relay operator show`
        key: String,
    },
    /// Signs a grant for another operator and prints it as one word
    Grant(Grant),
    /// Joins a fleet, or renews a grant, by the word another operator printed
    Accept {
        /// The word, - reads it from stdin
        grant: String,
    },
    /// This operator's grants and those it gave
    Grants,
    /// Takes a grant or an operator's key back, everywhere
    Revoke {
        /// A grant's id or its start, or an operator's name or key
        id: String,
    },
}

/// `relay operator grant`.
#[derive(Debug, Args)]
#[command(after_help = "\
Commands are patterns: * (every pack's), gpu.*, gpu.list. Nodes are selectors:
*, a name, an id, label=value, or several that must all hold with commas
between (site=west,gpu=h200); --nodes again names alternatives.

Example:
  relay operator grant alice --commands 'gpu.*,system.info' \\
      --nodes site=west --for 30d")]
pub struct Grant {
    /// Their name (`relay operator add`) or public key
    pub key: String,
    /// Patterns of commands they may call
    #[arg(long, value_name = "P,…", env = "OUTHAUL_COMMANDS", value_delimiter = ',', required = true)]
    pub commands: Vec<String>,
    /// Which nodes
    #[arg(long, value_name = "SEL", env = "OUTHAUL_NODES", required = true)]
    pub nodes: Vec<String>,
    /// How long it lasts: 12h, 30d
    #[arg(long = "for", value_name = "T", env = "OUTHAUL_FOR", value_parser = duration)]
    pub lasts: Duration,
    /// They may grant on, never more than this
    #[arg(long, env = "OUTHAUL_DELEGATE", value_parser = FalseyValueParser::new())]
    pub delegate: bool,
    /// They may certify nodes of these names: *, kiosk-*, bench-1
    #[arg(long, value_name = "NAMES,…", env = "OUTHAUL_ENROL", value_delimiter = ',')]
    pub enrol: Vec<String>,
    /// … with these labels: *, site=*, site=west
    #[arg(long, value_name = "LABELS,…", env = "OUTHAUL_ENROL_LABELS", value_delimiter = ',', requires = "enrol")]
    pub enrol_labels: Vec<String>,
    /// They may install, activate and remove packs
    #[arg(long, env = "OUTHAUL_PACKS", value_parser = FalseyValueParser::new())]
    pub packs: bool,
    /// They may change nodes' policy
    #[arg(long, env = "OUTHAUL_POLICY", value_parser = FalseyValueParser::new())]
    pub policy: bool,
    /// They may revoke keys and grants
    #[arg(long, env = "OUTHAUL_REVOKE", value_parser = FalseyValueParser::new())]
    pub revoke: bool,
    /// Quick read-only calls need no signature of their own: the sealed channel is evidence enough
    #[arg(long, env = "OUTHAUL_EVIDENCE_CHANNEL", value_parser = FalseyValueParser::new())]
    pub evidence_channel: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_twin() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| !matches!(long, "help" | "version"))) {
                let twin = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
                assert!(twin.starts_with("OUTHAUL_"), "{} --{}", command.get_name(), arg.get_long().unwrap_or_default());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn what_follows_two_dashes_is_the_program_s() {
        let Ok(Cli { command: Command::Run(run), global }) = parse("relay run bench-1 --cwd /srv --env A=1 --json -- ls -l --json") else {
            panic!("run")
        };
        assert!(global.json);
        assert_eq!((run.argv, run.env), (vec!["ls".to_owned(), "-l".into(), "--json".into()], vec!["A=1".to_owned()]));
        assert!(parse("relay run bench-1 ls").is_err());
    }

    #[test]
    fn the_long_form_of_invoke_is_taken() {
        let Ok(Cli { command: Command::Nodes(nodes), .. }) = parse("relay nodes invoke --node n --command gpu.list --params {}") else {
            panic!("nodes")
        };
        assert!(matches!(nodes.command, Some(NodesCommand::Invoke { how: How { params: Some(_), .. }, .. })));
        assert!(parse("relay nodes").is_ok());
    }

    #[test]
    fn what_contradicts_is_refused() {
        for line in [
            "relay invoke n c --params {} --params-file f",
            "relay pair new --name a --replace b",
            "relay pair new --detach --long",
            "relay serve --tls-cert c",
            "relay operator grant k --commands * --nodes *",
            "relay invoke n c --timeout soon",
            "relay pack deploy f",
            "relay pack deploy f n --to all",
            "relay pack deploy f --to all --canary 0%",
            "relay pack deploy f --to all --health a.b",
            "relay pack deploy f n --canary 10%",
            "relay pack rollback p",
            "relay pack rollback p n --to all",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
