//! `egret doctor`: what this machine, its kernel and the profile of its container let egret enforce, tried and not concluded.

use serde_json::json;

use super::{print, print_json};
use crate::cli::{DoctorArgs, Failure, Outcome, Output};
use crate::confinement::{self, Confine, Hold};

/// Tries, prints, and ends with 1 if an app would not be held.
pub(crate) fn doctor(args: &DoctorArgs) -> Outcome {
    let confinement = Hold::new(Confine::Auto, confinement::find(Confine::Auto), None).confinement();
    match args.output {
        Output::Text => print(&confinement.text())?,
        Output::Json => print_json(&json!({ "v": 1, "confinement": confinement }))?,
    }
    if confinement.holds() { Ok(()) } else { Err(Failure::Negative) }
}
