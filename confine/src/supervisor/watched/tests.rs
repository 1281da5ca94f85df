use super::*;

#[test]
fn whoever_hangs_is_interrupted_until_it_does_not() {
    assert!(sys::prepare_to_interrupt());
    let watched = Watched::default();
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| watched.run(|| rustix::io::read(&read, &mut [0_u8; 1])));
        scope.spawn(|| {
            while !hangs.is_finished() {
                watched.interrupt();
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(hangs.join().unwrap(), Err(rustix::io::Errno::INTR));
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
    assert!(ended.into_inner());
    assert!(watched.threads().is_empty());
}
