//! A list of rules as a seccomp filter in classic BPF (Documentation/userspace-api/seccomp_filter.rst).
//!
//! One instruction for each rule that does not concern the call; the first rule that holds decides. Of an argument only the
//! low 32 bits are compared where the kernel takes an `int`: it ignores the upper ones, and so must the filter.

use libc::sock_filter;

use crate::rules::{Action, Condition, Rule, Test};

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

// Instructions, from linux/bpf_common.h: class, size or operation, mode or source.
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_ABOVE_OR_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The one architecture whose calls are looked at (linux/audit.h). Calls of any other end the process: their numbers mean
/// something else.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;
/// The one architecture whose calls are looked at (linux/audit.h). Calls of any other end the process: their numbers mean
/// something else.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls from this number on are x32 calls of the same architecture (asm/unistd.h); they don't exist elsewhere.
#[cfg(target_arch = "x86_64")]
pub(crate) const FIRST_FOREIGN_CALL: u32 = 0x4000_0000;
/// No call of this architecture has a number with its highest bits set.
#[cfg(target_arch = "aarch64")]
pub(crate) const FIRST_FOREIGN_CALL: u32 = 0x4000_0000;

/// The filter for these rules; what no rule concerns is allowed.
pub(crate) fn compile(rules: &[Rule]) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCH),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        give(Action::Kill),
        load(NR),
        jump(JUMP_ABOVE_OR_EQUAL, FIRST_FOREIGN_CALL, 0, 1),
        give(Action::Fail(libc::ENOSYS)),
    ];
    for rule in rules {
        program.extend(compile_rule(rule));
    }
    program.push(give(Action::Allow));
    program
}

/// One rule. It is entered, and left if it does not hold, with the call's number in the accumulator.
fn compile_rule(rule: &Rule) -> Vec<sock_filter> {
    let blocks: Vec<Block> = rule.when.iter().map(compile_condition).collect();
    let decision = give(rule.then);
    if blocks.is_empty() {
        return vec![jump(JUMP_EQUAL, rule.call, 0, 1), decision];
    }
    let length: usize = blocks.iter().map(|block| block.0.len()).sum();
    // Beyond the conditions stand the decision and the load that restores the call's number.
    let mut rest = length + 2;
    let mut code = vec![jump(JUMP_EQUAL, rule.call, 0, near(rest))];
    for Block(block, fails_at) in blocks {
        let block_start = code.len();
        code.extend(block);
        rest -= code.len() - block_start;
        for at in fails_at {
            let to_the_end_of_the_block = code.len() - 1 - (block_start + at.index);
            // The restoring load is the last of `rest`.
            let distance = near(to_the_end_of_the_block + rest - 1);
            let instruction = &mut code[block_start + at.index];
            if at.when_true { instruction.jt = distance } else { instruction.jf = distance }
        }
    }
    code.extend([decision, load(NR)]);
    code
}

/// Instructions that fall through if the condition holds, and the jumps to be taken if it does not.
struct Block(Vec<sock_filter>, Vec<Exit>);

struct Exit {
    index: usize,
    when_true: bool,
}

fn compile_condition(condition: &Condition) -> Block {
    let low = ARGS + 8 * u32::from(condition.argument);
    let high = low + 4;
    match condition.test {
        Test::Is(value) => Block(vec![load(low), jump(JUMP_EQUAL, value, 0, 0)], vec![Exit { index: 1, when_true: false }]),
        Test::Masked(mask, value) => Block(
            vec![load(low), sock_filter { code: AND, jt: 0, jf: 0, k: mask }, jump(JUMP_EQUAL, value, 0, 0)],
            vec![Exit { index: 2, when_true: false }],
        ),
        Test::AnyOf(bits) => Block(vec![load(low), jump(JUMP_ANY_BIT, bits, 0, 0)], vec![Exit { index: 1, when_true: false }]),
        Test::NotNull => Block(
            vec![load(low), jump(JUMP_EQUAL, 0, 0, 2), load(high), jump(JUMP_EQUAL, 0, 0, 0)],
            vec![Exit { index: 3, when_true: true }],
        ),
    }
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn give(action: Action) -> sock_filter {
    let k = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Ask => libc::SECCOMP_RET_USER_NOTIF,
        Action::Fail(errno) => libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(),
        Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    sock_filter { code: RETURN, jt: 0, jf: 0, k }
}

/// Jumps stay within one rule, which has few instructions; the test of every shipped rule would notice a longer one.
fn near(distance: usize) -> u8 {
    u8::try_from(distance).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
