//! Races against the one who looks, thousands of times.

use crate::yard::{compile, is_possible, run};

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

#[test]
fn test_15_a_descriptor_that_is_flipped_between_a_connected_and_a_fresh_socket() {
    race("descriptor");
}

#[test]
fn test_15_a_descriptor_that_is_flipped_while_a_datagram_is_sent() {
    race("datagram");
}
