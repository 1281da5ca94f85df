//! What `egret inject` and `egret install` can be asked.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ModeArg, known};
use crate::inject::Format;
use crate::settings;
use crate::variables::Runtime;

/// A container's name: it becomes part of commands, paths and host names.
fn container_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        true => Err("a name is letters, digits and dashes, 63 at most".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// What stdin holds [default: what it looks like]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The image of egret, best by its digest
    #[arg(long, value_name = "IMAGE", env = "EGRET_IMAGE")]
    pub(crate) image: Option<String>,
    /// The policy goes into a variable, packed if it is long
    #[arg(long, value_name = "FILE", group = "delivery")]
    pub(crate) policy: Option<PathBuf>,
    /// The policy is a secret: an ARN (ECS), NAME or NAME/KEY (Kubernetes), one of the project's secrets (Compose)
    #[arg(long, value_name = "SECRET", group = "delivery")]
    pub(crate) policy_secret: Option<String>,
    /// policy.yaml is in a volume: one of the task (ECS), a ConfigMap (Kubernetes), a folder (Compose)
    #[arg(long, value_name = "VOLUME", group = "delivery")]
    pub(crate) policy_volume: Option<String>,
    /// Names to allow, in the place of a policy: "api.example.com *.cdn.example.com"
    #[arg(long, value_name = "NAMES", group = "delivery")]
    pub(crate) allow: Option<String>,
    /// The image holds /etc/egret/policy.yaml
    #[arg(long, group = "delivery")]
    pub(crate) policy_in_image: bool,
    /// Goes before the policy's own mode; audit needs no policy
    #[arg(long, value_name = "MODE")]
    mode: Option<ModeArg>,
    /// The containers that go through egret; may be repeated [default: all; in Compose the only service]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) container: Vec<String>,
    /// What their clients are written in [default: node]
    #[arg(long, value_name = "RUNTIME", value_enum, value_delimiter = ',')]
    pub(crate) runtime: Vec<Runtime>,
    /// A name or address that is reached without the proxy; with a dot before it, all below it too. May be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) direct: Vec<String>,
    /// Take the place of proxy variables that have other values
    #[arg(long = "override")]
    pub(crate) replace: bool,
    /// Let egret start the app, and hold it: the program is copied into a volume by a container that runs before it
    #[arg(long)]
    pub(crate) wrap: bool,
    /// With --wrap, what the image of a container starts, Entrypoint and Cmd: 'NAME=["/app", "--flag"]'
    #[arg(long, value_name = "NAME=JSON", requires = "wrap")]
    pub(crate) entrypoint: Vec<String>,
    /// What egret's container is called
    #[arg(long, value_name = "NAME", default_value = "egret", value_parser = container_name)]
    pub(crate) name: String,
    /// Where the proxy listens
    #[arg(long, value_name = "ADDR:PORT", default_value = settings::DEFAULT_LISTEN, value_parser = known)]
    pub(crate) listen: SocketAddr,
    /// Where the admin port listens
    #[arg(long, value_name = "ADDR:PORT", default_value = settings::DEFAULT_ADMIN, value_parser = known)]
    pub(crate) admin: SocketAddr,
    /// Take away what was added, to the last octet
    #[arg(long, conflicts_with_all = ["delivery", "wrap", "replace", "container", "mode"])]
    pub(crate) remove: bool,
    /// Print what changes, as a unified diff
    #[arg(long)]
    pub(crate) diff: bool,
}

impl InjectArgs {
    /// As `EGRET_MODE` is written.
    pub(crate) fn mode(&self) -> Option<&'static str> {
        self.mode.map(|mode| match mode {
            ModeArg::Audit => "audit",
            ModeArg::Enforce => "enforce",
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The folder, which has to be there; the program in it is called egret
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
