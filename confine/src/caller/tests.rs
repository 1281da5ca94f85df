use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use super::*;

fn this() -> Caller {
    Caller { tid: std::process::id() }
}

#[test]
fn sockets_are_told_apart_without_being_taken() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (unix, _other) = UnixDatagram::pair().unwrap();
    assert_eq!(this().protocol(tcp.as_raw_fd()), Ok(Protocol::Tcp(Family::V4)));
    assert_eq!(this().protocol(udp.as_raw_fd()), Ok(Protocol::Udp(Family::V4)));
    assert_eq!(this().protocol(unix.as_raw_fd()), Ok(Protocol::Unix));
    assert_ne!(this().socket(tcp.as_raw_fd()), this().socket(udp.as_raw_fd()));
}

#[test]
fn a_file_is_no_socket_whatever_its_name() {
    let folder = std::env::temp_dir().join(format!("confine-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = File::create(folder.join("socket:[1]")).unwrap();
    assert_eq!(this().socket(file.as_raw_fd()), Err(Errno::NOTSOCK));
    assert_eq!(this().socket(-1), Err(Errno::BADF));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn flags_are_those_of_the_descriptor() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(this().flags(socket.as_raw_fd()), Ok(Flags { nonblocking: false, close_on_exec: true }));
    socket.set_nonblocking(true).unwrap();
    assert_eq!(this().flags(socket.as_raw_fd()), Ok(Flags { nonblocking: true, close_on_exec: true }));
}

#[test]
fn memory_is_read_both_ways_and_what_is_not_there_is_a_fault() {
    let secret = *b"a name";
    let pointer = secret.as_ptr() as u64;
    let mut read = [0; 6];
    this().read(pointer, &mut read).unwrap();
    assert_eq!(read, secret);
    let mut read = [0; 6];
    this().read_file(pointer, &mut read).unwrap();
    assert_eq!(read, secret);
    for nowhere in [0, 8, 1 << 47, u64::MAX - 3] {
        assert_eq!(this().read(nowhere, &mut read), Err(Errno::FAULT), "{nowhere:#x}");
        assert_eq!(this().read_file(nowhere, &mut read), Err(Errno::FAULT), "{nowhere:#x}");
    }
}

#[test]
fn memory_is_written_where_it_is_and_nowhere_else() {
    let place = std::sync::Mutex::new([0_u8; 4]);
    let pointer = place.lock().unwrap().as_ptr() as u64;
    let memory = this().memory(|| true).unwrap();
    memory.write(pointer, b"text").unwrap();
    assert_eq!(*place.lock().unwrap(), *b"text");
    assert_eq!(memory.write(8, b"text"), Err(Errno::FAULT));
    let mut read = [0; 4];
    memory.read(pointer, &mut read).unwrap();
    assert_eq!(read, *b"text");
    assert_eq!(memory.read(8, &mut read), Err(Errno::FAULT));
}

#[test]
fn memory_of_a_caller_that_does_not_wait_is_not_had() {
    assert_eq!(this().memory(|| false).map(drop), Err(Errno::INTR));
}

#[test]
fn lengths_are_ints() {
    let bytes = [2_u8; 16];
    let pointer = bytes.as_ptr() as u64;
    assert_eq!(this().address(pointer, 129), Err(Errno::INVAL));
    assert_eq!(this().address(pointer, u64::from(u32::MAX)), Err(Errno::INVAL), "negative");
    assert_eq!(this().address(pointer, 0), Err(Errno::INVAL));
    assert_eq!(this().address(pointer, (1 << 32) | 2), this().address(pointer, 2), "the upper half is ignored");
}

#[test]
fn a_process_is_known_by_its_number_executable_and_user() {
    let process = this().process().unwrap();
    assert_eq!(process.pid, std::process::id());
    assert_eq!(process.exe, std::env::current_exe().ok());
    assert_eq!(process.uid, rustix::process::geteuid().as_raw());
}

#[test]
fn text_is_read_up_to_its_end() {
    let long = [b'x'; 5000].into_iter().chain([0]).collect::<Vec<u8>>();
    let at = |bytes: &[u8]| bytes.as_ptr() as u64;
    assert_eq!(this().read_text(at(b"text\0more"), 100), Ok(b"text".to_vec()));
    assert_eq!(this().read_text(at(b"text\0more"), 5), Ok(b"text".to_vec()));
    assert_eq!(this().read_text(at(b"text\0more"), 4), Err(Errno::NAMETOOLONG));
    assert_eq!(this().read_text(at(&long), 5001), Ok(long[..5000].to_vec()));
    assert_eq!(this().read_text(at(&long), 5000), Err(Errno::NAMETOOLONG));
    assert_eq!(this().read_text(8, 100), Err(Errno::FAULT));
    assert_eq!(this().read_text(u64::MAX, 100), Err(Errno::FAULT));
}
