use egret_policy::{Mode, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::confined::tests::gateway;

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(DnsName::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn answered(gateway: &Gateway, query: &[u8]) -> (Message, Option<Vec<u8>>) {
    let answered = gateway.answer_query(query, None).await.unwrap();
    (Message::from_vec(&answered.message).unwrap(), answered.again)
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn a_refused_name_does_not_exist_and_nobody_is_asked() {
    let (gateway, seen) = gateway(Mode::Enforce, &["*.a.test:443"], &[("evil.test", "8.8.8.8")]);
    for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::HTTPS] {
        let (message, again) = answered(&gateway, &query("evil.test.", kind)).await;
        assert_eq!((message.metadata.id, message.metadata.response_code), (7, ResponseCode::NXDomain), "{kind}");
        assert!(message.answers.is_empty() && again.is_none());
    }
    let names = seen.names.lock().unwrap();
    assert_eq!(names.iter().map(|name| name.denial.reason).collect::<Vec<_>>(), [Reason::NoRule; 4]);
    assert_eq!(seen.queries.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_allowed_name_is_answered_as_it_was_written_and_remembered() {
    let book = [("www.a.test", "192.0.2.7"), ("www.a.test", "10.0.0.1")];
    let (gateway, seen) = gateway(Mode::Enforce, &["*.a.test:443"], &book);
    let asked = query("wWw.A.test.", RecordType::A);
    let (message, again) = answered(&gateway, &asked).await;
    assert_eq!(addresses(&message), ["192.0.2.7"], "the other answer is outside of what the rule allows");
    assert_eq!(message.answers[0].name.to_ascii(), "wWw.A.test.");
    assert_eq!(again.unwrap(), asked);
    assert!(gateway.known.has(&"www.a.test".parse().unwrap(), "192.0.2.7".parse().unwrap()));
    assert!(gateway.names_of("10.0.0.1".parse().unwrap()).is_empty());
    let (message, _) = answered(&gateway, &query("www.a.test.", RecordType::AAAA)).await;
    assert_eq!((message.metadata.response_code, message.answers.len()), (ResponseCode::NoError, 0));
    assert!(seen.names.lock().unwrap().is_empty());
}

#[tokio::test]
async fn answers_that_no_connection_could_use_are_not_told() {
    let (gateway, seen) = gateway(Mode::Audit, &[], &[("inner.test", "10.0.0.1")]);
    let (message, again) = answered(&gateway, &query("inner.test.", RecordType::A)).await;
    assert_eq!((message.metadata.response_code, again), (ResponseCode::NXDomain, None));
    assert_eq!(seen.names.lock().unwrap()[0].denial.reason, Reason::AddressClass);
}

#[tokio::test]
async fn records_that_lead_elsewhere_are_none_and_faults_are_told() {
    let (gateway, _) = gateway(Mode::Enforce, &["*.a.test:443"], &[("www.a.test", "192.0.2.7")]);
    for kind in [RecordType::HTTPS, RecordType::SVCB] {
        let (message, _) = answered(&gateway, &query("www.a.test.", kind)).await;
        assert_eq!((message.metadata.response_code, message.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
    let (message, again) = answered(&gateway, &query("none.a.test.", RecordType::A)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    assert!(again.is_some(), "the name is allowed, it only does not exist");
    let (message, _) = answered(&gateway, &query("www.a.test.", RecordType::ANY)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::NotImp);
}

#[tokio::test]
async fn what_is_no_query_gets_no_answer() {
    let (gateway, _) = gateway(Mode::Audit, &[], &[("a.test", "192.0.2.7")]);
    let mut response = query("a.test.", RecordType::A);
    response[2] |= 0x80;
    let whole = query("a.test.", RecordType::A);
    for message in [&b""[..], b"\0", &whole[..whole.len() - 1], &response, &[0xff; 64]] {
        assert!(gateway.answer_query(message, None).await.is_none(), "{message:x?}");
    }
    let mut two = Message::from_vec(&query("a.test.", RecordType::A)).unwrap();
    two.add_query(two.queries[0].clone());
    let (message, again) = answered(&gateway, &two.to_vec().unwrap()).await;
    assert_eq!((message.metadata.response_code, again), (ResponseCode::NotImp, None));
}

#[tokio::test]
async fn what_does_not_fit_is_asked_again_by_tcp() {
    let name: &'static str = Box::leak(format!("{}.a.test", ["x"; 60].join("").as_str()).into_boxed_str());
    let answers: Vec<String> = (1..=16).map(|last| format!("2a00::{last}")).collect();
    let book: Vec<(&'static str, &str)> = answers.iter().map(|answer| (name, answer.as_str())).collect();
    let (gateway, _) = gateway(Mode::Audit, &[], &book);
    let asked = query(&format!("{name}."), RecordType::AAAA);
    let (message, _) = answered(&gateway, &asked).await;
    assert!(message.metadata.truncation && message.answers.is_empty(), "{message}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let inquiry = Inquiry::begin(&gateway, "192.0.2.53:53".parse().unwrap(), None).unwrap();
    tokio::spawn(serve(inquiry, accepted));
    for _ in 0..2 {
        stream.write_u16(u16::try_from(asked.len()).unwrap()).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 16);
    }
    stream.write_u16(u16::MAX).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "a query that is too long ends it");
}
