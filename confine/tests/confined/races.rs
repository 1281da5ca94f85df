//! Races against the one who looks, thousands of times.

use crate::yard::{Ground, compile, ground, is_possible, run, run_on};

fn race(how: &str) {
    if !is_possible() {
        return;
    }
    let program = compile(&format!("flip-{how}"), include_str!("attacks/flip.c"));
    let ran = run(true, &[&program.display().to_string(), how, "10000"]);
    ran.went_well().said("10000 attempts");
}

#[test]
fn test_14_an_address_that_is_flipped_between_good_and_evil() {
    race("address");
}

#[test]
fn test_14_an_address_that_is_flipped_between_unix_and_evil() {
    race("family");
}

/// On the ground where unix sockets are connected by the supervisor, with somebody who listens.
#[test]
fn test_14_an_address_that_is_flipped_between_a_listener_and_evil_on_an_old_kernel() {
    if ground() != Ground::Plain || !is_possible() {
        return;
    }
    let program = compile("flip-unix", include_str!("attacks/flip.c"));
    let ran = run_on(Ground::OldKernel, true, &[&program.display().to_string(), "unix", "10000"]);
    ran.went_well().said("10000 attempts");
    let connected = ran.stdout.lines().find_map(|line| line.strip_suffix(" connected")?.parse().ok());
    assert!(connected.is_some_and(|connected: u32| connected > 0), "no flip was right: {ran:#?}");
}

#[test]
fn test_15_a_descriptor_that_is_flipped_between_a_connected_and_a_fresh_socket() {
    race("descriptor");
}

#[test]
fn test_14_an_address_that_is_flipped_while_a_datagram_is_sent() {
    race("sendto");
}

#[test]
fn test_15_a_descriptor_that_is_flipped_while_a_datagram_is_sent() {
    race("datagram");
}

/// Whoever has the number of a thread that was killed has not called for anything.
#[test]
fn test_21_a_number_that_is_used_again() {
    if !is_possible() {
        return;
    }
    let numbers = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("a limit");
    if numbers.trim().parse::<u32>().expect("a number") > 1 << 16 {
        return eprintln!("*** no attempt: there are too many numbers of processes to use them all ***");
    }
    let ran = run(true, &[&compile("reused", include_str!("attacks/reused.c")).display().to_string()]);
    ran.went_well();
    if ran.stdout.starts_with("SKIPPED") {
        return eprintln!("*** no attempt: {} ***", ran.stdout.trim());
    }
    ran.said("untouched");
}
