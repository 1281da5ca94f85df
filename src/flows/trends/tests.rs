use std::net::Ipv4Addr;

use super::*;

fn line(way: &str, address: u32, time: &str) -> FlowLine {
    FlowLine {
        state: "ended".into(),
        way: way.into(),
        protocol: "tcp".into(),
        address: Some(Ipv4Addr::from_bits(address).into()),
        port: Some(443),
        exe: Some("/usr/bin/node".into()),
        bytes_up: Some(10),
        bytes_down: Some(20),
        connections: 1,
        time: time.into(),
        ..FlowLine::default()
    }
}

#[test]
fn hours_and_destinations_are_summed_and_a_name_goes_before_its_address() {
    let mut trends = Trends::default();
    let named = FlowLine { names: vec!["a.test".into()], ..line("proxy", 1, "2026-11-21T20:59:59.999Z") };
    [named.clone(), named, line("around", 1, "2026-11-21T21:00:00.000Z")].iter().for_each(|line| trends.see(line));
    let rows: Vec<_> = trends.rows().into_iter().map(|row| (row.hour, row.host, row.connections, row.bytes_down)).collect();
    assert_eq!(
        rows,
        [("2026-11-21T20:00:00Z".into(), "a.test".into(), 2, 40), ("2026-11-21T21:00:00Z".into(), "0.0.0.1".into(), 1, 20)]
    );
}

#[test]
fn the_tables_are_bounded_and_nothing_is_uncounted() {
    let mut trends = Trends::default();
    for number in 0..3_000 {
        trends.see(&line("around", number, "2026-11-21T20:00:00.000Z"));
    }
    let rows = trends.rows();
    assert_eq!(rows.len(), EACH_HOUR + 1);
    assert_eq!(rows.iter().map(|row| row.connections).sum::<u64>(), 3_000);
    assert_eq!((trends.around().len(), trends.other), (MOST_AROUND, 3_000 - MOST_AROUND as u64));
    for hour in 0..100 {
        trends.see(&line("proxy", 1, &format!("2026-12-{:02}T{:02}:00:00.000Z", 1 + hour / 24, hour % 24)));
    }
    assert_eq!(trends.hours.len(), HOURS);
    trends.see(&line("proxy", 1, "ä"));
}

fn hours(trends: &Trends) -> Vec<String> {
    trends.rows().into_iter().map(|row| row.hour).collect()
}

/// A machine that began in another year than its time server's.
#[test]
fn hours_of_a_clock_that_was_set_back_go_before_those_that_come() {
    let mut trends = Trends::default();
    for hour in 0..HOURS + 2 {
        trends.see_now(&line("proxy", 1, &format!("2036-01-{:02}T{:02}:30:00.000Z", 1 + hour / 24, hour % 24)));
    }
    assert_eq!(hours(&trends).first().map(String::as_str), Some("2036-01-01T02:00:00Z"), "the oldest went");
    for hour in ["2026-11-21T20", "2026-11-21T21"] {
        trends.see_now(&line("proxy", 1, &format!("{hour}:00:00.000Z")));
    }
    let kept = hours(&trends);
    assert_eq!((kept[0].as_str(), kept[1].as_str()), ("2026-11-21T20:00:00Z", "2026-11-21T21:00:00Z"));
    assert_eq!((kept.len(), kept[HOURS - 1].as_str()), (HOURS, "2036-01-02T23:00:00Z"));
}

#[test]
fn hours_of_a_clock_that_was_set_forward_take_the_place_of_the_oldest() {
    let mut trends = Trends::default();
    trends.see_now(&line("proxy", 1, "1970-01-01T00:00:05.000Z"));
    for hour in 0..HOURS {
        trends.see_now(&line("proxy", 1, &format!("2026-11-{:02}T{:02}:30:00.000Z", 1 + hour / 24, hour % 24)));
    }
    assert_eq!((hours(&trends).len(), hours(&trends)[0].as_str()), (HOURS, "2026-11-01T00:00:00Z"));
}

/// Journals of several tasks are read one after the other.
#[test]
fn of_journals_the_latest_hours_are_kept_in_whatever_order_they_are_read() {
    let mut trends = Trends::default();
    for day in [3, 1, 2] {
        (0..24).for_each(|hour| trends.see(&line("proxy", 1, &format!("2026-11-{day:02}T{hour:02}:00:00.000Z"))));
    }
    assert_eq!((hours(&trends).len(), hours(&trends)[0].as_str()), (HOURS, "2026-11-02T00:00:00Z"));
}

/// The day is later than the lines say, or earlier: first and last are what is written.
#[test]
fn first_and_last_are_the_ends_of_what_the_clock_said() {
    let mut trends = Trends::default();
    for time in ["2026-11-21T20:00:00.000Z", "2026-11-20T20:00:00.000Z", "2026-11-21T08:00:00.000Z"] {
        trends.see_now(&line("around", 1, time));
    }
    let [around] = &trends.around()[..] else { panic!("one owner and destination") };
    assert_eq!((around.first_seen.as_str(), around.last_seen.as_str()), ("2026-11-20T20:00:00.000Z", "2026-11-21T20:00:00.000Z"));
    assert_eq!((around.connections, trends.rows().iter().map(|row| row.connections).sum::<u64>()), (3, 3));
}

#[test]
fn who_went_around_is_told_with_what_to_set() {
    let mut trends = Trends::default();
    trends.see(&line("proxy", 1, "2026-11-21T20:00:00.000Z"));
    assert!(trends.around().is_empty());
    for time in ["2026-11-21T20:00:02.000Z", "2026-11-21T20:00:01.000Z"] {
        trends.see(&line("around", 1, time));
    }
    let [around] = &trends.around()[..] else { panic!("one owner and destination") };
    assert_eq!((around.connections, around.bytes_up), (2, Some(20)));
    assert_eq!((around.first_seen.as_str(), around.last_seen.as_str()), ("2026-11-21T20:00:01.000Z", "2026-11-21T20:00:02.000Z"));
    assert!(around.advice.as_deref().is_some_and(|advice| advice.contains("NODE_USE_ENV_PROXY")));
}
