//! The program around the members: it knows them all and decides nothing. `main` calls [`cli::main`].

#![deny(unsafe_code)]

pub mod cli;
pub mod config;
mod settings;
mod run;
mod witness;
mod workers;
mod reload;
mod shutdown;
mod stop;
mod stderr;
mod stream;
mod launch;
mod confinement;
mod events;
mod files;
mod flows;
mod readiness;
mod journal;
mod metrics;
mod admin;
mod discovery;
mod reading;
mod evidence;
mod replay;
mod learn;
mod moment;
mod variables;
mod inject;
pub mod retelling;
mod commands;
