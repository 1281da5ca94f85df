//! End to end: the real program, real sockets, real clients. Each module is a promise.
//!
//! Needs Debian's acl, curl, default-jdk-headless, git, golang-go, iproute2, libcap2-bin, libio-socket-ssl-perl,
//! liblwp-protocol-https-perl, minisign, musl-tools, nginx-light, openssh-client, openssl, patch, php-cli, php-curl,
//! postgresql-client, prometheus, python3-aiohttp, python3-httpx, python3-jsonschema, python3-requests, python3-venv,
//! python3-yaml, redis-tools, ruby, util-linux and wget, Node 24 and libraries for it, moto, boto3 and reqwest, and for the tests
//! of the image what `cargo dist` builds (`.ci/run` has the commands); a test that misses one fails and names it.

#![allow(clippy::print_stderr, reason = "a test that fails says what it saw")]

mod support;

mod names; // what a host name may look like (H)
mod lookalikes; // names that look like others, and protocols that look like others (H, T, S)
mod addresses; // which answers may be dialled, and that refused names are never asked for (A)
mod hello; // TLS and its server name (T)
mod socks; // SOCKS4, 4a and 5 (S)
mod segments; // no verdict depends on how bytes are cut
mod own; // egret never reaches itself, and its admin port is read-only (L)
mod forward; // HTTP in the clear, request by request (P)
mod framing; // where a cleartext request ends: one reading, or none (P)
mod answers; // upstreams that lie about where an answer ends (P)
mod tunnels; // bytes both ways: half-close, server-first, WebSocket, 64 MiB
mod clients; // curl, Python, Node, git, openssl, nginx as users have them; the matrix of all clients
mod dns; // upstreams, failures, rebinding, DNS over TLS
mod liar; // DNS answers that lie (A)
mod roles; // who is asking: by port and by proxy user
mod journal; // one record per connection, one answer to why
mod report; // the discovery report
mod admin; // health, readiness, metrics, status
mod policy_file; // errors, sources, reload
mod delivery; // every way a policy may come, in their order; --print-config
mod reload; // what a reload tells, and what it closes
mod agreement; // denial, journal and explain say the same, for every reason there is
mod commands; // check, explain, env, health
mod inject; // task definitions: in, out, and back; the program copied into a volume
mod deploy; // the examples: what egret made of them, and what reads them
mod image; // the static program in an empty root; the Dockerfile
mod task; // containers of one task: health, the order of the end, exit codes
mod doctor; // what the machine allows, and which clients go around
mod check_output; // every message of `check`, in all its forms
mod exe_roles; // roles by executable
mod schema; // the schema for editors agrees with the program
mod learn; // from journals to a policy
mod learn_base; // from journals to a change of a policy
mod learn_journals; // journals of many tasks, broken, foreign, hostile
mod learn_workload; // observe real clients, learn, enforce: nothing is denied
mod replay; // what a policy would have done
mod walkthrough; // the document, executed
mod files_commands; // manifests of files: made, verified, compared
mod files_signed; // manifests that are signed, and changes that are approved
mod files_run; // the file watch of a running egret
mod files_guard; // what somebody inside, or a mistake, would do to it
mod files_trust; // the same against a manifest, signatures, approvals, and with a command
mod flows; // every flow of the task, and which went around
mod lifecycle; // start, drain, stop, small machines
mod hostile; // journals, variables, signals and clients that mean harm (L, O, C, R)
mod starvation; // too few descriptors, too little memory, nobody who answers or reads (R, O)
mod soak; // good, bad, slow and vanishing clients for a while; then everything is as before
mod shared; // stdout and stderr, which egret and its app share (O)
mod launch; // `run -- CMD`: the app as egret's child
mod confined; // `run -- CMD`: every connection and every name of the app is held to the policy
mod abuse_table; // docs/abuse.md and the tests agree
mod fuzz_seeds; // what fuzzing looks for, of its stored corpora
mod limits_page; // the page of limits says what the code says
mod tidy; // promises about the source itself
