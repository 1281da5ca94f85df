//! The command line: what can be asked, and which exit code an answer becomes.

pub(crate) mod files;
pub(crate) mod inject;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use egret_policy::Mode;

use self::files::FilesCommand;
pub(crate) use self::inject::{InjectArgs, InstallArgs};
use crate::commands::explain::Shows;
use crate::config::diagnose::Diagnostics;
use crate::confinement::Confine;
use crate::journal::WhenFull;
use crate::learn::Mark;
use crate::variables::Runtime;
use crate::{commands, run, settings, stderr};

/// An egress gateway for containers that have no host.
#[derive(Debug, Parser)]
#[command(name = "egret", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: a proxy and an admin port on loopback; with -- CMD, as the entrypoint of an app
    Run(RunArgs),
    /// Validate a policy, run its own tests, and try it on what journals hold
    Check(CheckArgs),
    /// Say what the policy decides for a host, host:port or URL, and why
    Explain(ExplainArgs),
    /// Print the discovery report, from journals or from a running egret
    Report(ReportArgs),
    /// Propose a policy, or a change to one, from what journals hold
    Learn(LearnArgs),
    /// List every connection of this network namespace, its owner, its bytes, and which went around the proxy
    Flows(FlowsArgs),
    /// Make, verify and compare manifests of files, and approve of changes to them
    #[command(subcommand)]
    Files(FilesCommand),
    /// Put egret into a task definition, or take it out: stdin to stdout
    Inject(Box<InjectArgs>),
    /// Copy this program into a folder, for containers that it is to start
    Install(InstallArgs),
    /// Print the proxy variables for an app
    Env(EnvArgs),
    /// Say what this machine lets egret do and enforce, why not more, and which clients go around it
    Doctor(DoctorArgs),
    /// Probe a running egret: exit 0 if it is ready, 1 if not
    Health(HealthArgs),
    /// Print the JSON Schema of the policy file, for editors
    Schema,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
}

/// An address that others are told of.
fn known(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err("port 0 becomes another one when egret starts, which nobody can be told of before: name a port".to_owned())
        }
        Ok(address) => Ok(address),
        Err(error) => Err(format!("{error}; write ADDR:PORT, such as {}", settings::DEFAULT_LISTEN)),
    }
}

/// Where the policy is.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyArgs {
    /// The policy file; else EGRET_POLICY, EGRET_ALLOW, /etc/egret/policy.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Goes before the file's own mode
    #[arg(long, value_name = "MODE", env = "EGRET_MODE")]
    mode: Option<ModeArg>,
}

impl PolicyArgs {
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.mode.map(Mode::from)
    }
}

impl CheckArgs {
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.mode.map(Mode::from)
    }
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Audit => Self::Audit,
            ModeArg::Enforce => Self::Enforce,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Let through, and record what would be denied
    Audit,
    /// Deny what no rule allows
    Enforce,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Proxy listeners; may be repeated [default: 127.0.0.1:3128]
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<SocketAddr>,
    /// Admin listener: health, metrics, status [default: 127.0.0.1:3129]
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN")]
    pub(crate) admin: Option<SocketAddr>,
    /// Where records go: a file, or - for stdout [default: -]
    #[arg(long, value_name = "FILE", env = "EGRET_JOURNAL")]
    pub(crate) journal: Option<String>,
    /// What is done when a line cannot be queued or written [default: drop]
    #[arg(long, value_name = "WHAT", env = "EGRET_JOURNAL_FULL")]
    pub(crate) journal_full: Option<WhenFull>,
    /// After SIGTERM, serve this long for the app that drains too; CMD is killed after it [default: 10]
    #[arg(long, value_name = "SECONDS", env = "EGRET_DRAIN", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) drain: Option<u64>,
    /// The most client connections at one time [default: 16384]
    #[arg(long, value_name = "N", env = "EGRET_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: Option<u32>,
    /// After a reload, or when an audit ends, close live connections that would not be let through any more
    #[arg(long, value_name = "BOOL", env = "EGRET_CLOSE_REVOKED", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) close_revoked: Option<bool>,
    /// How far CMD is held to the policy, where it ignores the proxy variables too [default: auto]
    #[arg(long, value_name = "HOW", env = "EGRET_CONFINE")]
    pub(crate) confine: Option<Confine>,
    /// Tell a flow that lives again this often; 0: don't watch flows [default: 300]
    #[arg(long, value_name = "SECONDS", env = "EGRET_FLOWS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) flows: Option<u64>,
    /// Print every setting and where it came from, and end
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) print_config: Option<Output>,
    /// Start this program beside the gateway, with the proxy variables of `env` set, pass signals on to it, and end when it
    /// ends, with its status
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    /// Where each argument came from, by its long name.
    #[arg(skip)]
    pub(crate) sources: HashMap<String, ValueSource>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The policy file; else where `run` would look
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Goes before the file's own mode, as for `run`
    #[arg(long, value_name = "MODE", env = "EGRET_MODE")]
    mode: Option<ModeArg>,
    /// Warnings are findings too: exit 1
    #[arg(long)]
    pub(crate) strict: bool,
    /// Judge what these journals hold as if the policy enforced; - is stdin. Write FILE before it
    #[arg(long, value_name = "JOURNAL", num_args = 1..)]
    pub(crate) replay: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = CheckOutput::Text)]
    pub(crate) output: CheckOutput,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A host, host:port, or URL
    #[arg(required_unless_present_any = ["reason", "preset"])]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Who is asking
    #[arg(long, default_value = egret_policy::DEFAULT_ROLE)]
    pub(crate) role: String,
    /// Look the name up, and judge its addresses too
    #[arg(long)]
    pub(crate) resolve: bool,
    /// What the client shows first: sni=NAME, no-sni, two-snis, bad-sni, bad-hello, http, http=HOST[:PORT], bytes, nothing
    #[arg(long, value_name = "WHAT")]
    pub(crate) shows: Option<Shows>,
    /// Say what this reason of a journal means, and nothing else
    #[arg(long, value_name = "CODE", conflicts_with_all = ["target", "preset"])]
    pub(crate) reason: Option<String>,
    /// Print what this preset holds, and nothing else
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    pub(crate) preset: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct LearnArgs {
    /// Journals; - is stdin
    #[arg(value_name = "JOURNAL", required = true)]
    pub(crate) journals: Vec<PathBuf>,
    /// A policy to extend: what it lacks is printed as a unified diff
    #[arg(long, value_name = "POLICY")]
    pub(crate) base: Option<PathBuf>,
    /// Propose a wildcard for this many names below one parent [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) wildcard_after: Option<u32>,
    /// Take these in, which are left out otherwise
    #[arg(long, value_name = "MARK", value_enum, value_delimiter = ',')]
    pub(crate) include: Vec<Mark>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder, instead of printing one
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Journals; - is stdin. None: ask the running egret
    #[arg(value_name = "JOURNAL")]
    pub(crate) journals: Vec<PathBuf>,
    /// The admin address of the running egret
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN", default_value = settings::DEFAULT_ADMIN)]
    pub(crate) admin: SocketAddr,
    /// How to print
    #[arg(long, value_enum, default_value_t = ReportOutput::Text)]
    pub(crate) output: ReportOutput,
}

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    /// Go on, and print each flow as it begins and as it ends
    #[arg(long)]
    pub(crate) follow: bool,
    /// The admin address of the running egret; where none answers, this command looks for itself
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN", default_value = settings::DEFAULT_ADMIN)]
    pub(crate) admin: SocketAddr,
    /// A policy, whose `direct:` addresses are known; for a look without a running egret
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    /// A policy, whose `direct:` addresses go into NO_PROXY too
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The proxy's address as the app sees it
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_LISTEN", value_delimiter = ',', default_value = settings::DEFAULT_LISTEN, value_parser = known)]
    pub(crate) listen: Vec<SocketAddr>,
    /// What the app's clients are written in: more variables, and what they leave unread [default: node]
    #[arg(long, value_name = "RUNTIME", value_enum, value_delimiter = ',')]
    pub(crate) runtime: Vec<Runtime>,
    /// A name or address that is reached without the proxy; with a dot before it, all below it too. May be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) direct: Vec<String>,
    /// How to print
    #[arg(long, visible_alias = "format", value_enum, default_value_t = EnvOutput::Shell)]
    pub(crate) output: EnvOutput,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Try the clients that are found in PATH: which go through a proxy, and which around it
    #[arg(long)]
    pub(crate) clients: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The admin address of the running egret
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN", default_value = settings::DEFAULT_ADMIN)]
    pub(crate) admin: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs: stable and versioned
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    /// For people
    Text,
    /// For programs: stable and versioned
    Json,
    /// SARIF 2.1.0, for code review
    Sarif,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportOutput {
    /// A count, `host,tcp,port` rows, and a table
    Text,
    /// For programs: stable and versioned
    Json,
    /// One row a destination, with a header
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvOutput {
    /// `export` lines for eval
    Shell,
    /// An object
    Json,
    /// NAME=value lines
    Dotenv,
    /// The `environment` array of an ECS container definition
    Ecs,
}

/// Why a command ends other than well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit 1: a negative verdict or findings. What there is to say has been said.
    Negative,
    /// Exit 2: wrong usage or an invalid policy.
    Usage(anyhow::Error),
    /// Exit 3: the environment refuses: a port in use, a file that cannot be written.
    Environment(anyhow::Error),
    /// The status of the command that `run` started, passed on.
    Passed(u8),
    /// Exit 127 or 126: there is no such command, or it cannot be executed.
    Unstarted(u8, anyhow::Error),
}

impl Failure {
    /// A policy that cannot be used, with everything that is wrong with it.
    pub(crate) fn invalid(found: Diagnostics) -> Self {
        Self::Usage(anyhow::anyhow!("the policy is invalid\n{found}"))
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Negative => 1,
            Self::Usage(_) => 2,
            Self::Environment(_) => 3,
            Self::Passed(code) | Self::Unstarted(code, _) => *code,
        }
    }
}

/// What a command gives back.
pub(crate) type Outcome = Result<(), Failure>;

/// Parses, runs, and turns the outcome into an exit code: 0 ok, 1 negative, 2 usage or policy, 3 environment, 70 a
/// bug of ours; `run -- CMD` ends with the command's own.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let sources = sources(&matches);
    let outcome = std::panic::catch_unwind(|| match cli.command {
        Command::Run(args) => run::run(&RunArgs { sources, ..args }),
        Command::Check(args) => commands::check::check(&args),
        Command::Explain(args) => commands::explain::explain(&args),
        Command::Report(args) => commands::report::report(&args),
        Command::Learn(args) => commands::learn::learn(&args),
        Command::Flows(args) => commands::flows::flows(&args),
        Command::Files(command) => commands::files::files(&command),
        Command::Inject(args) => commands::inject::inject(&args),
        Command::Install(args) => commands::install::install(&args),
        Command::Env(args) => commands::env::env(&args),
        Command::Doctor(args) => commands::doctor::doctor(&args),
        Command::Health(args) => commands::health::health(&args),
        Command::Schema => commands::generate::schema(),
        Command::Completions(args) => commands::generate::completions(Cli::command(), args.shell),
        Command::Man(args) => commands::generate::man(Cli::command(), args.dir.as_deref()),
    });
    let code = match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            if let Failure::Usage(error) | Failure::Environment(error) | Failure::Unstarted(_, error) = &failure {
                stderr::say(format_args!("{error:#}"));
            }
            ExitCode::from(failure.exit_code())
        }
        Err(_) => ExitCode::from(70),
    };
    stderr::finish();
    code
}

/// Where the arguments of the subcommand came from, by their long names.
fn sources(matches: &ArgMatches) -> HashMap<String, ValueSource> {
    let Some((_, matches)) = matches.subcommand() else { return HashMap::new() };
    let named = |id: &clap::Id| Some((id.as_str().replace('_', "-"), matches.value_source(id.as_str())?));
    matches.ids().filter_map(named).collect()
}
