use proptest::prelude::*;

use super::*;
use crate::rules::tests::decide;
use crate::rules::{Guarded, Setting, rules};

/// What the kernel would do: a classic BPF machine with the instructions that are used here.
fn run(program: &[sock_filter], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        NR => call,
        ARCH => architecture,
        _ => {
            let argument = arguments[(offset - ARGS) as usize / 8];
            (if (offset - ARGS).is_multiple_of(8) { argument } else { argument >> 32 } & 0xffff_ffff) as u32
        }
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jumps = match code {
            RETURN => return k,
            LOAD_WORD => {
                accumulator = word(k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP_EQUAL => accumulator == k,
            JUMP_ABOVE_OR_EQUAL => accumulator >= k,
            JUMP_ANY_BIT => accumulator & k != 0,
            _ => panic!("instruction {code:#x}"),
        };
        at += usize::from(if jumps { jt } else { jf });
    }
}

const SETTINGS: [Setting; 2] = [
    Setting { guarded: None, no_namespaces: false, unix_is_born: false, executions_are_told: false, memory_is_sealed: false },
    Setting {
        guarded: Some(Guarded { pid: 4711, group: 4700 }),
        no_namespaces: true,
        unix_is_born: true,
        executions_are_told: true,
        memory_is_sealed: true,
    },
];

#[test]
fn foreign_calls_are_never_looked_at() {
    let program = compile(&rules(&SETTINGS[1]));
    assert_eq!(run(&program, 0x4000_0003, 102, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS, "i386 socketcall");
    let x32_connect = 0x4000_0000 | u32::try_from(libc::SYS_connect).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    assert_eq!(run(&program, ARCHITECTURE, x32_connect, [0; 6]), refused);
    assert_eq!(run(&program, ARCHITECTURE, u32::MAX, [0; 6]), refused);
}

#[test]
fn the_kernel_takes_programs_of_this_size() {
    // BPF_MAXINSNS of linux/bpf_common.h.
    assert!(compile(&rules(&SETTINGS[1])).len() < 4096);
}

/// Values that matter to some rule, and any other.
fn argument() -> impl Strategy<Value = u64> {
    let values: Vec<u64> = SETTINGS
        .iter()
        .flat_map(rules)
        .flat_map(|rule| rule.when)
        .map(|condition| match condition.test {
            Test::Is(value) | Test::Masked(_, value) | Test::AnyOf(value) => u64::from(value),
            Test::NotNull => 1 << 32,
        })
        .chain([0, 1])
        .collect();
    let near = prop::sample::select(values);
    prop_oneof![4 => near.clone(), 1 => near.prop_map(|value| value | 0x1_0000_0000), 1 => any::<u64>()]
}

fn call() -> impl Strategy<Value = u32> {
    let calls: Vec<u32> = rules(&SETTINGS[1]).iter().map(|rule| rule.call).collect();
    prop_oneof![8 => prop::sample::select(calls), 1 => 0..500_u32]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_program_decides_as_the_rules_say(
        call in call(),
        arguments in prop::array::uniform6(argument()),
        setting in prop::sample::select(&SETTINGS[..]),
    ) {
        let rules = rules(&setting);
        let expected = give(decide(&rules, call, arguments)).k;
        prop_assert_eq!(run(&compile(&rules), ARCHITECTURE, call, arguments), expected);
    }
}
