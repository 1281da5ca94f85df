//! The command line: what can be asked, and which exit code an answer becomes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use egret_policy::Mode;

use crate::{commands, run};

/// An egress gateway for containers that have no host.
#[derive(Debug, Parser)]
#[command(name = "egret", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: a proxy and an admin port on loopback
    Run(RunArgs),
    /// Validate a policy and run its own tests
    Check(CheckArgs),
    /// Say what the policy decides for a host, host:port or URL, and why
    Explain(ExplainArgs),
    /// Print the discovery report, from journals or from a running egret
    Report(ReportArgs),
    /// Print the proxy variables for an app
    Env(EnvArgs),
    /// Probe a running egret: exit 0 if it is ready, 1 if not
    Health(HealthArgs),
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
    /// After SIGTERM, serve this long for the app that drains too [default: 10]
    #[arg(long, value_name = "SECONDS", env = "EGRET_DRAIN")]
    pub(crate) drain: Option<u64>,
    /// The most client connections at one time [default: 16384]
    #[arg(long, value_name = "N", env = "EGRET_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The policy file; else where `run` would look
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Goes before the file's own mode, as for `run`
    #[arg(long, value_name = "MODE", env = "EGRET_MODE")]
    mode: Option<ModeArg>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A host, host:port, or URL
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Who is asking
    #[arg(long, default_value = egret_policy::DEFAULT_ROLE)]
    pub(crate) role: String,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Journals; - is stdin. None: ask the running egret
    #[arg(value_name = "JOURNAL")]
    pub(crate) journals: Vec<PathBuf>,
    /// The admin address of the running egret
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN", default_value = run::DEFAULT_ADMIN)]
    pub(crate) admin: SocketAddr,
    /// How to print
    #[arg(long, value_enum, default_value_t = ReportOutput::Text)]
    pub(crate) output: ReportOutput,
}

#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    /// The proxy's address as the app sees it
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_LISTEN", value_delimiter = ',', default_value = run::DEFAULT_LISTEN)]
    pub(crate) listen: Vec<SocketAddr>,
    /// How to print
    #[arg(long, value_enum, default_value_t = EnvOutput::Shell)]
    pub(crate) output: EnvOutput,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The admin address of the running egret
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN", default_value = run::DEFAULT_ADMIN)]
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
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Negative => 1,
            Self::Usage(_) => 2,
            Self::Environment(_) => 3,
        }
    }
}

/// What a command gives back.
pub(crate) type Outcome = Result<(), Failure>;

/// Parses, runs, and turns the outcome into an exit code: 0 ok, 1 negative, 2 usage or policy, 3 environment, 70 a
/// bug of ours.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = std::panic::catch_unwind(|| match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => commands::check::check(&args),
        Command::Explain(args) => commands::explain::explain(&args),
        Command::Report(args) => commands::report::report(&args),
        Command::Env(args) => commands::env::env(&args),
        Command::Health(args) => commands::health::health(&args),
    });
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            if let Failure::Usage(error) | Failure::Environment(error) = &failure {
                eprintln!("egret: {error:#}");
            }
            ExitCode::from(failure.exit_code())
        }
        Err(_) => ExitCode::from(70),
    }
}
