//! Every metric name in one table, with what it means. Counters are fed from what the members report; nothing here
//! decides. Host names are never labels: an app can ask for as many as it likes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use egret_inotify_fim::ledger::{Ledger, REASONS};
use egret_policy::{Mode, Policy, Reason, RuleId};
use egret_proxy::{Close, ConnectFault, Decision, DnsFault, NameRecord, Record, RequestRecord, Via};
use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub(crate) const EVENTS_DROPPED: &str = "egret_events_dropped_total";
const BUILD_INFO: &str = "egret_build_info";
const POLICY_INFO: &str = "egret_policy_info";
const POLICY_LOADED: &str = "egret_policy_load_timestamp_seconds";
const POLICY_RELOADS: &str = "egret_policy_reloads_total";
const DECISIONS: &str = "egret_egress_decisions_total";
const EXECUTIONS: &str = "egret_executions_unlisted_total";
const ACTIVE: &str = "egret_egress_connections_active";
const DURATION: &str = "egret_egress_connection_duration_seconds";
const BYTES: &str = "egret_egress_bytes_total";
const CONNECT_DURATION: &str = "egret_upstream_connect_duration_seconds";
const CONNECT_FAILURES: &str = "egret_upstream_connect_failures_total";
const DNS_QUERIES: &str = "egret_dns_queries_total";
const DNS_DURATION: &str = "egret_dns_query_duration_seconds";
const SNI_MISMATCH: &str = "egret_tls_sni_mismatch_total";
const ACCEPT_ERRORS: &str = "egret_accept_errors_total";
const REVOKED: &str = "egret_connections_revoked_total";
const UNATTRIBUTED: &str = "egret_clients_unattributed_total";
const PANICS: &str = "egret_panics_total";
const DESTINATIONS: &str = "egret_discovered_destinations";
const FLOWS: &str = "egret_flows_total";
const FLOW_BYTES: &str = "egret_flow_bytes_total";
const FLOWS_AROUND: &str = "egret_flows_around_total";
const FLOWS_GAPS: &str = "egret_flows_gaps_total";
const FLOWS_KNOWN: &str = "egret_flows_known";
const FLOWS_UNEXPLAINED: &str = "egret_flows_unexplained_bytes";
const FILE_EVENTS: &str = "egret_file_events_total";
const FILES_ENTRIES: &str = "egret_files_entries";
const FILES_WATCHED: &str = "egret_files_watched";
const FILES_WATCH_BUDGET: &str = "egret_files_watch_budget";
const FILES_POLLED: &str = "egret_files_polled";
const FILES_UNCOVERED: &str = "egret_files_uncovered";
const FILES_GAPS: &str = "egret_files_gaps_total";
const FILES_GAP_OPEN: &str = "egret_files_gap_open";
const INOTIFY_OVERFLOWS: &str = "egret_inotify_overflows_total";
const FILES_COMPARED: &str = "egret_files_compared_timestamp_seconds";
const FILE_RESCAN_DURATION: &str = "egret_file_rescan_duration_seconds";

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const TABLE: &[(&str, Kind, &str)] = &[
    (BUILD_INFO, Kind::Gauge, "Always 1; the labels say what runs"),
    (POLICY_INFO, Kind::Gauge, "Always 1 for the policy in force; the labels say which"),
    (POLICY_LOADED, Kind::Gauge, "When the policy in force was loaded, in seconds since 1970"),
    (POLICY_RELOADS, Kind::Counter, "Reloads of the policy by result"),
    (DECISIONS, Kind::Counter, "Verdicts on connections, and on each request of a forward connection"),
    (EXECUTIONS, Kind::Counter, "Executions by a confined program of what `exec:` does not list, by mode"),
    (ACTIVE, Kind::Gauge, "Client connections that are open"),
    (DURATION, Kind::Histogram, "How long client connections lived"),
    (BYTES, Kind::Counter, "Bytes to (up) and from (down) upstreams, counted as connections end"),
    (CONNECT_DURATION, Kind::Histogram, "How long it took to connect to an upstream, failures included"),
    (CONNECT_FAILURES, Kind::Counter, "Upstreams that could not be connected to, by kind"),
    (DNS_QUERIES, Kind::Counter, "Names resolved, cache included, by result"),
    (DNS_DURATION, Kind::Histogram, "How long it took to resolve a name, cache included"),
    (SNI_MISMATCH, Kind::Counter, "Connections whose SNI was not the requested name"),
    (ACCEPT_ERRORS, Kind::Counter, "Accepts that failed for want of descriptors or memory"),
    (REVOKED, Kind::Counter, "Live connections closed because another policy would not let them through"),
    (UNATTRIBUTED, Kind::Counter, "Clients whose executable could not be told, though roles ask for it"),
    (PANICS, Kind::Counter, "Panics of ours; each ended a connection, or a task in the background"),
    (EVENTS_DROPPED, Kind::Counter, "Events lost because their sink could not keep up"),
    (DESTINATIONS, Kind::Gauge, "Destinations in the discovery table"),
    (FLOWS, Kind::Counter, "Flows of this network namespace that ended, by the way that they took and protocol"),
    (FLOW_BYTES, Kind::Counter, "Bytes that TCP flows carried, by way, counted as they end or every few minutes"),
    (FLOWS_AROUND, Kind::Counter, "Flows that went around the proxy, by what the policy says of them"),
    (FLOWS_GAPS, Kind::Counter, "Times in which ends of flows were lost, by cause"),
    (FLOWS_KNOWN, Kind::Gauge, "Sockets in the table of flows"),
    (FLOWS_UNEXPLAINED, Kind::Gauge, "Bytes that the interfaces carried and TCP does not explain: UDP, and what has no socket"),
    (FILE_EVENTS, Kind::Counter, "Changes of watched files, by kind, severity and watched path"),
    (FILES_ENTRIES, Kind::Gauge, "Paths that are known and compared"),
    (FILES_WATCHED, Kind::Gauge, "Directories and files with an inotify watch"),
    (FILES_WATCH_BUDGET, Kind::Gauge, "How many there may be"),
    (FILES_POLLED, Kind::Gauge, "Trees that are compared often, as events do not tell everything there"),
    (FILES_UNCOVERED, Kind::Gauge, "Paths that are not covered, or by comparison only, by reason"),
    (FILES_GAPS, Kind::Counter, "Times in which events of files were lost, by cause"),
    (FILES_GAP_OPEN, Kind::Gauge, "1 until everything was compared after a loss"),
    (INOTIFY_OVERFLOWS, Kind::Counter, "Overflows of the kernel's queue of file events"),
    (FILES_COMPARED, Kind::Gauge, "When all watched files were last compared, in seconds since 1970, by source"),
    (FILE_RESCAN_DURATION, Kind::Histogram, "How long comparisons of watched files took, by source"),
];

/// Buckets in seconds: a dial or a look-up takes from a fraction of a millisecond to its deadline.
const FAST: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets in seconds: a connection lives from milliseconds to hours.
const LONG: &[f64] = &[0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 36_000.0];

/// Installs the recorder and describes every metric.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(DURATION.into()), LONG)?
        .set_buckets_for_metric(Matcher::Full(FILE_RESCAN_DURATION.into()), LONG)?
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), FAST)?
        .install_recorder()
        .context("cannot install the metrics recorder")?;
    for (name, kind, help) in TABLE {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
    begin_at_zero();
    Ok(handle)
}

/// Counts every panic from now on, whichever task it ends; it is still printed.
pub(crate) fn count_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counter!(PANICS).increment(1);
        print(panic);
    }));
}

/// An alert on a counter that does not exist yet never fires: those that alerts stand on begin at zero.
fn begin_at_zero() {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    counter!(EVENTS_DROPPED, "sink" => "journal").absolute(0);
    counter!(SNI_MISMATCH).absolute(0);
    counter!(ACCEPT_ERRORS).absolute(0);
    counter!(PANICS).absolute(0);
    counter!(REVOKED).absolute(0);
    counter!(UNATTRIBUTED).absolute(0);
    for result in ["loaded", "rejected"] {
        counter!(POLICY_RELOADS, "result" => result).absolute(0);
    }
    for via in VIAS {
        gauge!(ACTIVE, "via" => via.as_str()).set(0.0);
    }
}

/// The hash and mode that the info series tells of.
static IN_FORCE: Mutex<Option<(Arc<str>, Mode)>> = Mutex::new(None);

/// Another policy is in force, or another mode of it. The former info series goes to 0, as a series cannot be taken back.
pub(crate) fn policy_in_force(policy: &Policy) {
    let told = (Arc::clone(policy.hash()), policy.mode_at(egret_proxy::now()));
    let mut former = IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner);
    if former.as_ref() == Some(&told) {
        return;
    }
    if let Some(former) = former.as_ref() {
        info(former).set(0.0);
    }
    info(&told).set(1.0);
    *former = Some(told);
}

/// A policy was read and put in force.
pub(crate) fn policy_loaded() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    gauge!(POLICY_LOADED).set(now.as_secs_f64());
}

fn info((hash, mode): &(Arc<str>, Mode)) -> metrics::Gauge {
    gauge!(POLICY_INFO, "hash" => Arc::clone(hash), "mode" => mode.to_string())
}

pub(crate) fn reloaded(result: &'static str) {
    counter!(POLICY_RELOADS, "result" => result).increment(1);
}

/// In the order of the type.
const VIAS: [Via; 6] = [Via::Connect, Via::Forward, Via::Socks5, Via::Socks4, Via::Tls, Via::Confined];

/// The series that every connection moves, found once: to find one by its name and labels costs more than a decision does.
pub(crate) struct Connections {
    by_via: [(Gauge, Histogram); VIAS.len()],
    verdicts: Mutex<HashMap<Verdict, Counter>>,
    bytes: Mutex<HashMap<Arc<str>, [Counter; 2]>>,
    resolved: Counter,
    resolving: Histogram,
    dialling: Histogram,
    destinations: Gauge,
}

/// The labels of a verdict; as many as the recorder has series for them.
type Verdict = (Decision, Option<Reason>, Arc<str>, Option<RuleId>);

impl Connections {
    /// Registers the series with the recorder that is installed.
    pub(crate) fn new() -> Self {
        let of_via = |via: Via| (gauge!(ACTIVE, "via" => via.as_str()), histogram!(DURATION, "via" => via.as_str()));
        Self {
            by_via: VIAS.map(of_via),
            verdicts: Mutex::default(),
            bytes: Mutex::default(),
            resolved: counter!(DNS_QUERIES, "result" => "ok"),
            resolving: histogram!(DNS_DURATION),
            dialling: histogram!(CONNECT_DURATION),
            destinations: gauge!(DESTINATIONS),
        }
    }

    fn of(&self, via: Via) -> &(Gauge, Histogram) {
        &self.by_via[via as usize]
    }

    pub(crate) fn began(&self, via: Via) {
        self.of(via).0.increment(1.0);
    }

    pub(crate) fn decided(&self, record: &Record) {
        let Some(decision) = record.decision() else { return };
        let reason = record.objection().map(|denial| denial.reason);
        self.count((decision, reason, Arc::clone(&record.role), record.rule.clone()));
    }

    pub(crate) fn answered(&self, request: &RequestRecord) {
        let reason = request.objection().map(|denial| denial.reason);
        self.count((request.decision(), reason, Arc::clone(&request.role), request.rule.clone()));
    }

    pub(crate) fn name_refused(&self, record: &NameRecord) {
        let denial = &record.denial;
        self.count((Decision::Deny, Some(denial.reason), Arc::clone(&record.role), denial.rule.clone()));
    }

    fn count(&self, verdict: Verdict) {
        if verdict.1 == Some(Reason::SniMismatch) {
            counter!(SNI_MISMATCH).increment(1);
        }
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        match verdicts.get(&verdict) {
            Some(counter) => counter.increment(1),
            None => {
                let counter = verdict_counter(&verdict);
                counter.increment(1);
                verdicts.insert(verdict, counter);
            }
        }
    }

    pub(crate) fn closed(&self, record: &Record) {
        if let Some(via) = record.via {
            let (active, duration) = self.of(via);
            active.decrement(1.0);
            duration.record(record.duration.as_secs_f64());
        }
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if !bytes.contains_key(&record.role) {
            bytes.insert(Arc::clone(&record.role), byte_counters(&record.role));
        }
        let [up, down] = &bytes[&record.role];
        up.increment(record.bytes_up);
        down.increment(record.bytes_down);
        if record.close == Close::Revoked {
            counter!(REVOKED).increment(1);
        }
    }

    pub(crate) fn resolved(&self, outcome: Result<(), DnsFault>, took: Duration) {
        match outcome {
            Ok(()) => self.resolved.increment(1),
            Err(fault) => counter!(DNS_QUERIES, "result" => fault.code()).increment(1),
        }
        self.resolving.record(took.as_secs_f64());
    }

    pub(crate) fn dialled(&self, outcome: Result<(), ConnectFault>, took: Duration) {
        if let Err(fault) = outcome {
            counter!(CONNECT_FAILURES, "kind" => fault.code()).increment(1);
        }
        self.dialling.record(took.as_secs_f64());
    }

    pub(crate) fn destinations(&self, count: usize) {
        self.destinations.set(float(count));
    }
}

fn verdict_counter((decision, reason, role, rule): &Verdict) -> Counter {
    let (reason, rule) = (reason.map_or("", Reason::code), rule.as_ref().map_or("", RuleId::as_str).to_owned());
    counter!(DECISIONS, "decision" => decision.as_str(), "reason" => reason, "role" => Arc::clone(role), "rule" => rule)
}

fn byte_counters(role: &Arc<str>) -> [Counter; 2] {
    ["up", "down"].map(|direction| counter!(BYTES, "direction" => direction, "role" => Arc::clone(role)))
}

pub(crate) fn executed(mode: Mode) {
    counter!(EXECUTIONS, "mode" => mode.to_string()).increment(1);
}

pub(crate) fn unattributed() {
    counter!(UNATTRIBUTED).increment(1);
}

pub(crate) fn accept_failed() {
    counter!(ACCEPT_ERRORS).increment(1);
}

/// The watch over flows begins: what alerts stand on begins at zero.
pub(crate) fn flows_begin() {
    for action in ["alert", "unhealthy", "stop"] {
        counter!(FLOWS_AROUND, "action" => action).absolute(0);
    }
    for cause in ["kernel_queue", "own_queue"] {
        counter!(FLOWS_GAPS, "cause" => cause).absolute(0);
    }
}

pub(crate) fn flow_ended(way: &'static str, protocol: &'static str) {
    counter!(FLOWS, "way" => way, "protocol" => protocol).increment(1);
}

pub(crate) fn flow_carried(way: &'static str, up: u64, down: u64) {
    for (direction, bytes) in [("up", up), ("down", down)] {
        counter!(FLOW_BYTES, "way" => way, "direction" => direction).increment(bytes);
    }
}

pub(crate) fn went_around(action: &'static str) {
    counter!(FLOWS_AROUND, "action" => action).increment(1);
}

pub(crate) fn flows_lost(cause: &'static str) {
    counter!(FLOWS_GAPS, "cause" => cause).increment(1);
}

pub(crate) fn flows_known(sockets: usize) {
    gauge!(FLOWS_KNOWN).set(float(sockets));
}

pub(crate) fn unexplained(up: u64, down: u64) {
    for (direction, bytes) in [("up", up), ("down", down)] {
        // Beyond 2^53 the last digits are lost, which nobody will miss.
        gauge!(FLOWS_UNEXPLAINED, "direction" => direction).set(bytes as f64);
    }
}

/// The file watch begins: what alerts stand on begins at zero.
pub(crate) fn files_begin() {
    counter!(INOTIFY_OVERFLOWS).absolute(0);
    for cause in ["kernel_queue", "own_queue"] {
        counter!(FILES_GAPS, "cause" => cause).absolute(0);
    }
}

pub(crate) fn file_changed(change: &'static str, severity: &'static str, rule: &str) {
    counter!(FILE_EVENTS, "kind" => change, "severity" => severity, "rule" => rule.to_owned()).increment(1);
}

pub(crate) fn file_gap(cause: &'static str) {
    if cause == "kernel_queue" {
        counter!(INOTIFY_OVERFLOWS).increment(1);
    }
    counter!(FILES_GAPS, "cause" => cause).increment(1);
}

pub(crate) fn files_compared(source: &'static str, took: Duration) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // A poll looks at what is not watched only.
    if source != "poll" {
        gauge!(FILES_COMPARED, "source" => source).set(now.as_secs_f64());
    }
    histogram!(FILE_RESCAN_DURATION, "source" => source).record(took.as_secs_f64());
}

pub(crate) fn files_covered(ledger: &Ledger) {
    let set = |name, count: usize| gauge!(name).set(float(count));
    set(FILES_ENTRIES, ledger.entries);
    set(FILES_WATCHED, ledger.watched);
    set(FILES_WATCH_BUDGET, ledger.budget);
    set(FILES_POLLED, ledger.polled);
    set(FILES_GAP_OPEN, usize::from(ledger.gap_since.is_some()));
    for reason in REASONS {
        let count = ledger.reasons.get(reason).copied().unwrap_or(0);
        gauge!(FILES_UNCOVERED, "reason" => *reason).set(float(count));
    }
}

fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_series_of_its_own() {
        assert_eq!(VIAS.map(|via| via as usize), std::array::from_fn(|at| at));
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let connections = metrics::with_local_recorder(&recorder, Connections::new);
        VIAS.into_iter().enumerate().for_each(|(at, via)| (0..=at).for_each(|_| connections.began(via)));
        let text = handle.render();
        for (at, via) in VIAS.into_iter().enumerate() {
            let line = format!("egret_egress_connections_active{{via=\"{}\"}} {}", via.as_str(), at + 1);
            assert!(text.lines().any(|told| told == line), "no {line} in {text}");
        }
    }

    #[test]
    fn r15_every_panic_is_counted_whichever_task_it_ends() {
        count_panics();
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            for _ in 0..2 {
                assert!(std::panic::catch_unwind(|| panic!("a bug, on purpose")).is_err());
            }
        });
        let text = handle.render();
        assert!(text.contains("egret_panics_total 2"), "{text}");
    }
}
