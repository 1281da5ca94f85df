use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn line(way: &str, address: u32, up: u64, connections: u64) -> FlowLine {
    FlowLine {
        state: "ended".into(),
        way: way.into(),
        protocol: "tcp".into(),
        address: Some(Ipv4Addr::from_bits(address).into()),
        port: Some(443),
        exe: Some("/app".into()),
        bytes_up: Some(up),
        bytes_down: Some(1),
        connections,
        ..FlowLine::default()
    }
}

#[test]
fn a_few_lines_of_one_destination_stand_alone_and_more_are_one() {
    let (mut fold, now) = (Fold::default(), Instant::now());
    let alone = (0..12).filter(|_| fold.admits(line("around", 1, 10, 1), now).is_some()).count();
    assert_eq!(alone, EACH as usize);
    assert!(fold.admits(line("around", 2, 10, 1), now).is_some(), "another destination has its own");
    assert!(fold.take(now + WINDOW / 2, false).is_empty());
    let [folded] = &fold.take(now + WINDOW, false)[..] else { panic!("one line") };
    assert_eq!((folded.state.as_str(), folded.connections, folded.bytes_up), ("folded", 7, Some(70)));
    assert!(fold.admits(line("around", 1, 10, 1), now + WINDOW).is_some(), "another window");
}

#[test]
fn what_comes_in_is_one_by_our_port() {
    let (mut fold, now) = (Fold::default(), Instant::now());
    let alone = (0..50).filter(|client| fold.admits(line("in", *client, 10, 1), now).is_some()).count();
    assert_eq!(alone, EACH as usize);
    let [folded] = &fold.take(now, true)[..] else { panic!("one line") };
    assert_eq!((folded.address, folded.port, folded.connections), (None, None, 45));
}

proptest! {
    #[test]
    fn whatever_comes_adds_up_in_few_lines(lines in proptest::collection::vec((0..2000u32, 0..100u64, 0..2u64, 0..400u64), 0..3000)) {
        let (mut fold, mut now) = (Fold::default(), Instant::now());
        let mut told = Vec::new();
        let mut windows = 1;
        for (address, up, connections, pause) in &lines {
            now += Duration::from_millis(*pause / 100);
            let due = fold.take(now, false);
            windows += usize::from(!due.is_empty());
            told.extend(due);
            told.extend(fold.admits(line("around", *address, *up, *connections), now));
        }
        told.extend(fold.take(now, true));
        prop_assert_eq!(told.iter().map(|line| line.connections).sum::<u64>(), lines.iter().map(|line| line.2).sum::<u64>());
        prop_assert_eq!(told.iter().filter_map(|line| line.bytes_up).sum::<u64>(), lines.iter().map(|line| line.1).sum::<u64>());
        prop_assert!(told.len() <= windows * (ALL as usize + KEYS + 2), "{}", told.len());
    }
}
