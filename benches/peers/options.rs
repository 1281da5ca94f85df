//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::load::Span;
use crate::subjects::SUBJECTS;

pub(crate) const USAGE: &str = "\
cargo bench --bench peers -- [OPTION]...

  --only NAME,…       these proxies (direct, egret, egret-socks, egret-sni, squid, …) instead of all that are installed
  --subject NAME,…    these subjects instead of all: holds, tunnels, bulk, http, idle, start, crowd
  --rounds N          rounds, which take turns between the proxies; 3 unless told
  --seconds S         what is counted of each sample; 0.8 unless told
  --egret FILE        another egret than the one that was built for this
  --other FILE        a second one, to compare with: other, other-socks, other-sni
  --under 'WORDS'     words before egret's own, as of a profiler: 'perf record -g -o /tmp/egret.perf --'
  --save              writes the tables to benches/peers/results.md

A proxy is found in PATH, or where PEER_<PROGRAM> says, as in PEER_ENVOY=/opt/envoy.";

pub(crate) struct Options {
    pub(crate) only: Vec<String>,
    pub(crate) subjects: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) span: Span,
    pub(crate) egret: PathBuf,
    pub(crate) other: Option<PathBuf>,
    pub(crate) under: Vec<String>,
    pub(crate) save: bool,
}

impl Options {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let span = Span { warm_up: Duration::from_millis(250), counted: Duration::from_millis(800) };
        let egret = PathBuf::from(env!("CARGO_BIN_EXE_egret"));
        let (only, subjects, under) = (Vec::new(), Vec::new(), Vec::new());
        let mut options = Self { only, subjects, rounds: 3, span, egret, other: None, under, save: false };
        while let Some(option) = arguments.next() {
            if option == "--bench" {
                continue;
            }
            if option == "--save" {
                options.save = true;
                continue;
            }
            let value = arguments.next().with_context(|| format!("{option} needs a value\n\n{USAGE}"))?;
            options.set(&option, &value)?;
        }
        if let Some(unknown) = options.subjects.iter().find(|subject| !SUBJECTS.contains(&subject.as_str())) {
            bail!("there is no subject {unknown}\n\n{USAGE}");
        }
        Ok(options)
    }

    fn set(&mut self, option: &str, value: &str) -> anyhow::Result<()> {
        let list = || value.split(',').map(str::to_owned).collect();
        match option {
            "--only" => self.only = list(),
            "--subject" => self.subjects = list(),
            "--rounds" => self.rounds = value.parse().context("--rounds")?,
            "--seconds" => self.span.counted = Duration::try_from_secs_f64(value.parse()?).context("--seconds")?,
            "--egret" => self.egret = value.into(),
            "--other" => self.other = Some(value.into()),
            "--under" => self.under = value.split_whitespace().map(str::to_owned).collect(),
            _ => bail!("{option} is no option\n\n{USAGE}"),
        }
        Ok(())
    }

    pub(crate) fn wants(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|wanted| wanted == subject)
    }
}
