//! `egret doctor`: what this machine, its kernel and the profile of its container let egret do and enforce, tried and not
//! concluded; and, with `--clients`, which programs found here go around the proxy.

mod clients;
mod machine;

use serde::Serialize;
use serde_json::json;

use self::clients::Tried;
use super::{print, print_json};
use crate::cli::{DoctorArgs, Failure, Outcome, Output};
use crate::confinement::{self, Confine, Hold};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// In a sentence, with what to do where something is to be done.
    what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// Worth knowing.
    Note,
    /// Something will not work.
    Bad,
}

impl Check {
    fn new(name: &'static str, state: State, what: impl Into<String>) -> Self {
        Self { name, state, what: what.into() }
    }
}

/// Tries, prints, and ends with 1 if an app would not be held, or, asked for clients, if one of them goes around.
pub(crate) fn doctor(args: &DoctorArgs) -> Outcome {
    // Before there are other threads.
    let confinement = Hold::new(Confine::Auto, confinement::find(Confine::Auto), None).confinement();
    let checks = machine::checks();
    let clients = if args.clients { clients::tried().map_err(|error| Failure::Environment(error.into()))? } else { Vec::new() };
    match args.output {
        Output::Text => print(&format!("{}{}{}", confinement.text(), rows(&checks), clients::rows(&clients)))?,
        Output::Json => {
            let mut told = json!({ "v": 1, "confinement": confinement, "checks": checks });
            if args.clients {
                told["clients"] = json!(clients);
            }
            print_json(&told)?;
        }
    }
    let is_well = if args.clients { clients.iter().all(Tried::goes_through) } else { confinement.holds() };
    if is_well { Ok(()) } else { Err(Failure::Negative) }
}

/// A sign, a word and a sentence each; never a sign alone.
fn rows(checks: &[Check]) -> String {
    let row = |check: &Check| {
        let sign = match check.state {
            State::Good => "+",
            State::Note => "~",
            State::Bad => "-",
        };
        format!("{sign} {:11} {}\n", check.name, check.what)
    };
    checks.iter().map(row).collect()
}
