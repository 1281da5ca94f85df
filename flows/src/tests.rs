//! Against the real `/proc`, over loopback.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::*;

/// The client's end and the server's end of one connection.
fn connection(listen: &str, to: impl Fn(u16) -> SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(listen).expect("a port on loopback");
    let client = TcpStream::connect(to(listener.local_addr().unwrap().port())).expect("a connection");
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn ipv4_connection() -> (TcpStream, TcpStream) {
    connection("127.0.0.1:0", |port| ([127, 0, 0, 1], port).into())
}

fn owner_of_the_peer(server: &TcpStream) -> Result<Owner, Unknown> {
    owner(server.peer_addr().unwrap(), server.local_addr().unwrap())
}

fn this() -> Owner {
    Owner { pid: std::process::id(), exe: std::env::current_exe().unwrap() }
}

/// A process that holds `client` until its peer closes.
fn holding(program: impl AsRef<Path>, client: &TcpStream) -> Child {
    let socket = OwnedFd::from(client.try_clone().unwrap());
    Command::new(program.as_ref()).stdin(Stdio::from(socket)).stdout(Stdio::null()).spawn().expect("the program starts")
}

fn exe_of(child: &Child) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", child.id())).unwrap()
}

fn end(server: TcpStream, children: impl IntoIterator<Item = Child>) {
    drop(server);
    for mut child in children {
        child.wait().unwrap();
    }
}

#[test]
fn the_owner_of_a_socket_of_this_process_is_this_process() {
    let (client, server) = ipv4_connection();
    assert_eq!(owner_of_the_peer(&server), Ok(this()));
    assert_eq!(owner_of_the_peer(&client), Ok(this()), "the server's end has an owner as well");
}

#[test]
fn an_ipv4_connection_may_have_an_ipv6_socket_at_either_end() {
    let (_client, server) = connection("127.0.0.1:0", |port| format!("[::ffff:127.0.0.1]:{port}").parse().unwrap());
    assert_eq!(owner_of_the_peer(&server), Ok(this()));
    let (_client, server) = connection("[::ffff:127.0.0.1]:0", |port| ([127, 0, 0, 1], port).into());
    assert!(server.peer_addr().unwrap().is_ipv6());
    assert_eq!(owner_of_the_peer(&server), Ok(this()));
}

#[test]
fn an_ipv6_connection_has_an_owner() {
    let (_client, server) = connection("[::1]:0", |port| format!("[::1]:{port}").parse().unwrap());
    assert_eq!(owner_of_the_peer(&server), Ok(this()));
}

#[test]
fn a_socket_that_its_client_closed_is_none() {
    let (client, mut server) = ipv4_connection();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "the end has come");
    assert_eq!(owner_of_the_peer(&server), Err(Unknown::NoSocket));
}

#[test]
fn a_socket_handed_to_another_program_has_no_owner_until_one_is_left() {
    let (client, server) = ipv4_connection();
    let children = [holding("cat", &client), holding("cat", &client)];
    let cat = exe_of(&children[0]);
    let both = owner_of_the_peer(&server);
    assert!(matches!(&both, Err(Unknown::Several(one, other)) if (one == &cat) != (other == &cat)), "{both:?}");
    drop(client);
    let smallest = children.iter().map(Child::id).min().unwrap();
    assert_eq!(owner_of_the_peer(&server), Ok(Owner { pid: smallest, exe: cat }));
    assert!(others_visible());
    end(server, children);
}

#[test]
fn a_program_deleted_since_it_started_is_no_owner() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("cat");
    let (client, server) = ipv4_connection();
    let original = holding("cat", &client);
    // By another process: a file that this one has open for writing, however briefly, may not be startable.
    assert!(Command::new("cp").args([&exe_of(&original), &program]).status().unwrap().success());
    let (client2, server2) = ipv4_connection();
    let copy = holding(&program, &client2);
    drop((client, client2));
    assert_eq!(owner_of_the_peer(&server2), Ok(Owner { pid: copy.id(), exe: program.canonicalize().unwrap() }));
    fs::remove_file(&program).unwrap();
    let unknown = owner_of_the_peer(&server2).unwrap_err();
    assert!(matches!(&unknown, Unknown::Deleted(path) if path.ends_with("cat")), "{unknown:?}");
    end(server, [original]);
    end(server2, [copy]);
}

#[test]
fn what_is_unknown_has_a_code_and_a_sentence_on_one_line() {
    let forged = PathBuf::from("/bin/a\n{\"v\":1}");
    for (unknown, code) in [
        (Unknown::NoSocket, "no_socket"),
        (Unknown::NotVisible, "not_visible"),
        (Unknown::UserNamespace, "user_namespace"),
        (Unknown::Several(forged.clone(), "/bin/b".into()), "several"),
        (Unknown::Deleted(forged), "deleted"),
        (Unknown::Procfs("/proc: no".into()), "procfs"),
    ] {
        assert_eq!(unknown.code(), code);
        let sentence = unknown.to_string();
        assert!(sentence.contains("client") && !sentence.contains('\n') && !sentence.contains("  "), "{sentence:?}");
    }
}
