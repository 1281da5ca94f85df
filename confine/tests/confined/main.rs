//! Programs that connect, honestly or not, run confined and without privilege. A tap on the only way out is the judge of each
//! attempt: not one packet may leave. Numbers are those of the study of ways around.

mod binds;
mod bypasses;
mod in_use;
mod connects;
mod datagrams;
mod executions;
mod grounds;
mod names;
mod outside;
mod privileges;
mod races;
mod supervision;
mod unix;
mod yard;

#[test]
#[ignore = "it is what the other tests run as a process of its own"]
fn as_the_supervisor() {
    yard::supervise();
}
