//! Connections that carry much, that are many, or that end at once: no byte is lost, and each leaves one record.

use serde_json::Value;

use super::{POLICY, run, start};

#[test]
fn megabytes_go_both_ways_and_each_side_may_end_first() {
    let script = r#"
import hashlib
s = connected("db.test", 5432)
block, blocks = os.urandom(1 << 16), 256
def send():
    for _ in range(blocks): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
heard, length = hashlib.sha256(), 0
while data := s.recv(1 << 16): heard.update(data); length += len(data)
print("heard", length, heard.digest() == hashlib.sha256(block * blocks).digest())
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("heard 16777216 True");
    let record = scene.record("db.test", 5432);
    assert_eq!((&record["bytes_up"], &record["bytes_down"]), (&16_777_216.into(), &16_777_216.into()), "{record:#}");
    scene.outside.only(&["44.0.0.8:5432"], &["db.test"]);
}

#[test]
fn many_at_a_time() {
    let script = r#"
addresses("good.test")
said = []
def ask(number): said.append(request(connected(GOOD, 80), "good.test"))
threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("said", len(said), set(said) == {"hello from 44.0.0.7:80 as good.test"})
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("said 200 True");
    let records = scene.egret.wait_records(200);
    assert!(records.iter().all(|record| record["decision"] == "allow" && record["host"] == "good.test"), "{records:#?}");
    scene.outside.only(&["44.0.0.7:80"; 200], &["good.test"]);
}

/// Who is gone before egret has accepted it, or dialled for it, leaves nothing behind but its record.
#[test]
fn connections_that_are_closed_at_once() {
    let script = r#"
addresses("db.test")
for number in range(300):
    s = tcp(); s.setblocking(number % 3 == 0); s.connect_ex(("44.0.0.8", 5432))
    if number % 2: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    if os.fork() == 0:
        tcp().connect_ex(("44.0.0.8", 5432)); os._exit(0)
    os.wait()
print("done"); wait()
"#;
    let Some(scene) = start(POLICY, script) else { return };
    scene.said("done");
    let records: Vec<Value> = scene.egret.wait_records(600);
    assert!(records.iter().all(|record| record["decision"] == "allow"), "{records:#?}");
    scene.egret.metric_becomes("egret_egress_connections_active", &[("via", "confined")], 0.0);
    scene.outside.only(&["44.0.0.8:5432"; 600], &["db.test"]);
}

/// A thousand threads call again and again where nobody answers, which they may. Others are served all the while, by name as well.
#[test]
fn a_flood_into_silence_keeps_nobody_else_waiting() {
    let policy = "egress:\n  allow: [{ to: 'good.test:80' }, { to: '46.0.0.1', ports: [81], as: tcp }]\n";
    let script = r#"
threading.stack_size(128 * 1024)
knocked, heard, ended = threading.Semaphore(0), set(), threading.Event()
def knock():
    while not ended.is_set():
        knocked.release(); heard.add(outcome(connected, "46.0.0.1", 81))
threads = [threading.Thread(target=knock, daemon=True) for _ in range(1000)]
for thread in threads: thread.start()
for _ in threads: knocked.acquire()
said = {get("http://good.test/") for _ in range(30)}
names = {str(addresses("evil.test")) for _ in range(30)}
print("said", said, names); ended.set()
for thread in threads: thread.join()
print("heard", heard)
"#;
    let Some(scene) = run(policy, script) else { return };
    scene.said("said {'hello from 44.0.0.7:80 as good.test'} {'NONAME'}").said("heard {'ETIMEDOUT'}");
    let left = scene.outside.left();
    let silence = left.iter().filter(|line| *line == "connect 46.0.0.1:81").count();
    assert!(silence >= 1000, "{silence}");
}
