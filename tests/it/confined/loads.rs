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
