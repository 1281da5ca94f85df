//! What `egret files` takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

/// Manifests of files: what is there, what should be, and what may change.
#[derive(Debug, Subcommand)]
pub(crate) enum FilesCommand {
    /// Write down what files are there, for later: at the end of an image's build
    Baseline(BaselineArgs),
    /// Compare the files here with a manifest: exit 0 if they are equal, 1 if not
    Verify(VerifyArgs),
    /// Compare two manifests: exit 0 if they are equal, 1 if not
    Diff(DiffArgs),
    /// Write down what may change, until when: the step from one manifest to another
    Expect(ExpectArgs),
    /// Ask a running egret what it watches, what it does not, and what it found
    Status(StatusArgs),
}

/// Where what is made goes.
#[derive(Debug, Args)]
pub(crate) struct Destination {
    /// The file to write, whole or not at all; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// Sign it with this key of `minisign -G`, into FILE.minisig; a password is taken from EGRET_SIGN_PASSWORD or a terminal
    #[arg(long, value_name = "SECRET-KEY")]
    pub(crate) sign: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BaselineArgs {
    /// Directories or files, looked at as a whole
    #[arg(value_name = "ROOT", required = true)]
    pub(crate) roots: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) to: Destination,
    /// Leave out paths like this, unless they can be executed; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) ignore: Vec<String>,
    /// Keep inode numbers and the kernel's times: on this machine `verify --stat-only` can then prove what it does not read
    #[arg(long)]
    pub(crate) local: bool,
    /// Write the manifest although something could not be read, and has no hash in it or is missing
    #[arg(long)]
    pub(crate) allow_unreadable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The manifest; else the baseline of the policy, with its key and approved changes
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: Option<PathBuf>,
    /// The policy to ask, where no MANIFEST is named; else EGRET_POLICY, /etc/egret/policy.yaml
    #[arg(long, value_name = "FILE", conflicts_with = "manifest")]
    pub(crate) policy: Option<PathBuf>,
    /// Take it only if it is signed: the .pub file of `minisign -G`, or the key itself in base64
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Changes that were approved: these are no findings. Must be signed with the same key
    #[arg(long, value_name = "FILE", requires_all = ["key", "manifest"])]
    pub(crate) expected: Option<PathBuf>,
    /// Read no content: compare sizes and times, which whoever owns a file can set. With a manifest of --local what these do not
    /// prove is read
    #[arg(long)]
    pub(crate) stat_only: bool,
    /// Leave out paths like this, unless they can be executed; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) ignore: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A manifest
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// Another
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Take them only if both are signed: the .pub file of `minisign -G`, or the key itself in base64
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The admin port to ask
    #[arg(long, value_name = "ADDR:PORT", env = "EGRET_ADMIN", default_value = crate::settings::DEFAULT_ADMIN)]
    pub(crate) admin: SocketAddr,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExpectArgs {
    /// The manifest of what is there
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The manifest of what shall be there
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Approve of nothing from this time on: 2027-03-31 (its first instant, UTC) or 2027-03-31T12:00:00Z
    #[arg(long, value_name = "DATE")]
    pub(crate) until: String,
    /// Approve of nothing before this time
    #[arg(long, value_name = "DATE")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) to: Destination,
}
