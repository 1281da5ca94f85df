use proptest::prelude::*;

use super::*;

const TEXT: &[u8] = b"21 1 254:0 / / rw,relatime - ext4 /dev/root rw,discard\n\
    24 21 0:22 / /proc rw,nosuid shared:5 master:2 propagate_from:1 - proc proc rw,hidepid=2\n\
    40 21 0:31 /inner /with\\040space\\134and\\012line ro shared:1 - tmpfs  rw\n\
    41 21 0:32 / /app rw - fuse.s3 none ro,user_id=0\n";

#[test]
fn every_word_of_a_line_is_read() {
    let table = parse(TEXT).0;
    assert_eq!(table.len(), 4);
    let odd = &table[&40];
    assert_eq!(odd.point, b"/with space\\and\nline");
    assert_eq!((odd.root.as_slice(), odd.fs_type.as_str(), &odd.source), (b"/inner".as_slice(), "tmpfs", &None));
    assert!(odd.read_only && table[&41].read_only && !table[&21].read_only, "by the mount's words or the file system's");
    assert_eq!(table[&21].source.as_deref(), Some(b"/dev/root".as_slice()));
    assert_eq!(table[&41].source, None);
    assert_eq!(table[&24].device, Device { major: 0, minor: 22 });
    assert_eq!(table[&24].options, b"rw,hidepid=2");
    assert_eq!(parse(b""), (Table::new(), 0));
}

#[test]
fn a_line_that_is_none_is_skipped_and_counted() {
    let whole = parse(TEXT).0;
    for end in 0..TEXT.len() {
        let (table, bad) = parse(&TEXT[..end]);
        assert!(bad <= 1, "only the last line");
        assert!(table.len() <= whole.len());
        // Only the last line can be shorter than it was.
        for (id, mount) in table.iter().rev().skip(usize::from(bad == 0)) {
            assert_eq!(*mount, whole[id], "{end}");
        }
    }
    for bad in
        ["x", "1 2 3 4", "1 1 0:1 / / rw", "1 1 0:1 / / rw - a b c d", "1 1 0:1 / relative rw - a b c", "-1 1 0:1 / / rw - a b c"]
    {
        assert_eq!(parse(bad.as_bytes()), (Table::new(), 1), "{bad}");
        let among = [bad.as_bytes(), b"\n", TEXT].concat();
        assert_eq!(parse(&among), (whole.clone(), 1), "the others count");
    }
}

#[test]
fn this_process_has_mounts() {
    assert!(read().unwrap().0.values().any(|mount| mount.point == b"/"));
}

#[test]
fn what_came_went_or_was_made_read_only_is_told() {
    let before = parse(TEXT).0;
    let mut now = before.clone();
    assert_eq!(changes(&before, &now), []);
    now.remove(&40);
    now.get_mut(&21).unwrap().read_only = true;
    now.get_mut(&41).unwrap().fs_type = "ext4".into();
    let app = || b"/app".to_vec();
    let mounted = MountChange::Mounted { fs_type: "ext4".into(), source: None, read_only: true };
    assert_eq!(
        changes(&before, &now),
        [
            (before[&40].point.clone(), MountChange::Unmounted),
            (app(), MountChange::Unmounted),
            (b"/".to_vec(), MountChange::Remounted { read_only: true }),
            (app(), mounted),
        ],
        "a number that stands for another mount is one that went and one that came"
    );
}

#[test]
fn a_mount_concerns_the_trees_that_it_is_in_or_over() {
    let trees = [(b"/link".as_slice(), b"/data/app".as_slice()), (b"/srv", b"/srv")];
    let places = |point: &str| {
        let found = places(point.as_bytes(), trees.into_iter());
        found.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(places("/data/app"), ["/link"]);
    assert_eq!(places("/data/app/x/y"), ["/link/x/y"]);
    assert_eq!(places("/data"), ["/link"]);
    assert_eq!(places("/"), ["/link", "/srv"]);
    assert_eq!(places("/data/apple"), [""; 0]);
    assert_eq!(places("/sr"), [""; 0]);
    assert_eq!(super::places(b"/a/b", [(b"/".as_slice(), b"/".as_slice())].into_iter()), [b"/a/b"]);
}

#[test]
fn d11_file_systems_that_others_can_change_are_known() {
    for (name, magic) in
        [("nfs", 0x6969), ("smb2", 0xfe53_4d42), ("9p", 0x0102_1997), ("fuse", 0x6573_5546), ("ceph", 0x00c3_6400)]
    {
        assert!(is_remote(magic), "{name}");
    }
    for (name, magic) in [("ext4", 0xef53), ("tmpfs", 0x0102_1994), ("overlay", 0x794c_7630), ("xfs", 0x5846_5342)] {
        assert!(!is_remote(magic), "{name}");
    }
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
        let _ = unescape(&text);
    }

    #[test]
    fn any_point_is_read_as_it_was_written(point in proptest::collection::vec(1_u8.., 0..20)) {
        let point = [b"/".as_slice(), &point].concat();
        let written: Vec<u8> = point
            .iter()
            .flat_map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                byte => vec![*byte],
            })
            .collect();
        let text = [b"7 1 0:1 / ", written.as_slice(), b" rw - tmpfs x rw"].concat();
        prop_assert_eq!(&parse(&text).0[&7].point, &point);
    }
}
