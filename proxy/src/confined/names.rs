//! DNS of a confined program. Its queries end here: what the policy refuses does not exist and asks nobody; addresses of what is
//! allowed come from egret's own resolution, pass `vet`, and are remembered with their name.
//!
//! Messages are those of RFC 1035. A query for HTTPS or SVCB records is answered with none: what they carry (keys for ECH,
//! other addresses) would hide the name that is shown, or lead elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use egret_policy::{Denial, Name, Policy, RoleId};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name as DnsName, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::{Process, note_refused, role_of};
use crate::connection::{look_up, over_the_limit};
use crate::fault::DnsFault;
use crate::listener::{Gateway, now};

/// How long a program may keep an answer, in seconds: egret keeps it as long as the server says, and asking again is cheap.
const TTL: u32 = 10;
/// The longest message by UDP without EDNS (RFC 1035 section 2.3.4), and with.
const UDP: std::ops::RangeInclusive<u16> = 512..=1232;
/// The longest query by TCP that is read.
const MAX_QUERY: usize = 4096;

/// What a query is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub message: Vec<u8>,
    /// Whether the name is allowed, so that the same may be asked elsewhere: this query, written anew.
    pub again: Option<Vec<u8>>,
}

/// A name that was refused.
#[derive(Clone, Debug)]
pub struct NameRecord {
    /// What was asked for, in normal form where it is a name of hosts.
    pub name: String,
    /// `A`, `AAAA`, …
    pub kind: String,
    /// The role of who asked.
    pub role: Arc<str>,
    /// Who asked, if that is known.
    pub process: Option<Process>,
    /// Why it was refused.
    pub denial: Denial,
    /// The hash of the policy that judged it.
    pub policy: Arc<str>,
}

impl Gateway {
    /// Answers one DNS query by UDP. `None` for what is no query: it gets no answer.
    pub async fn answer_query(&self, query: &[u8], process: Option<Process>) -> Option<Answered> {
        let asked = Asked::read(query)?;
        let answer = self.answer(&asked, process).await;
        let again = answer.is_allowed.then(|| asked.again());
        let longest = asked.message.max_payload().clamp(*UDP.start(), *UDP.end());
        Some(Answered { message: encoded(answer.message, longest)?, again: again.flatten() })
    }

    /// Whether a query is refused by its name, so that nobody is asked. Nothing is told of it.
    #[must_use]
    pub fn refuses_query(&self, query: &[u8], process: Option<&Process>) -> bool {
        let policy = self.policy();
        let query = Asked::read(query).and_then(|asked| asked.query);
        let refused = |name: &Name| policy.lookup(name, &roles_of(&policy, process), now()).is_err();
        query.is_some_and(|query| Name::parse(&query.name().to_ascii()).map_or(true, |name| refused(&name)))
    }

    async fn answer(&self, asked: &Asked, process: Option<Process>) -> Answer {
        let mut answer = Answer { message: asked.response(), is_allowed: false };
        match self.records(asked, process).await {
            Ok(records) => {
                answer.is_allowed = true;
                answer.message.add_answers(records);
            }
            Err(No::Refused) => answer.message.metadata.response_code = ResponseCode::NXDomain,
            Err(No::Fault(fault)) => {
                answer.is_allowed = true;
                answer.message.metadata.response_code = code(fault);
            }
            Err(No::NotServed) => answer.message.metadata.response_code = ResponseCode::NotImp,
        }
        answer
    }

    async fn records(&self, asked: &Asked, process: Option<Process>) -> Result<Vec<Record>, No> {
        let query = asked.query.as_ref().ok_or(No::NotServed)?;
        // Root and whatever is no name of hosts has no address that could be allowed.
        let name = Name::parse(&query.name().to_ascii()).map_err(|_| No::Refused)?;
        let policy = self.policy();
        let roles = roles_of(&policy, process.as_ref());
        let refused = |denial| {
            let (role, policy) = (Arc::clone(policy.role_name(roles[0])), Arc::clone(policy.hash()));
            self.observer.name_refused(NameRecord {
                name: name.to_string(),
                kind: query.query_type().to_string(),
                role,
                process: process.clone(),
                denial,
                policy,
            });
            No::Refused
        };
        let mut lookup = policy.lookup(&name, &roles, now()).map_err(refused)?;
        match query.query_type() {
            RecordType::A | RecordType::AAAA => {
                let passed = lookup.vet(&look_up(self, self.resolver().resolve(&name)).await?).map_err(refused)?;
                self.known.learn(&name, &passed);
                let family = |address: &&IpAddr| address.is_ipv4() == (query.query_type() == RecordType::A);
                Ok(passed.iter().filter(family).map(|address| record(query.name(), *address)).collect())
            }
            RecordType::HTTPS | RecordType::SVCB => Ok(Vec::new()),
            RecordType::ANY | RecordType::AXFR | RecordType::IXFR => Err(No::NotServed),
            other => Ok(look_up(self, self.resolver().records(&name, other)).await?),
        }
    }
}

/// Who asks need not be known by now; who uses the answer will be.
fn roles_of(policy: &Policy, process: Option<&Process>) -> Vec<RoleId> {
    if process.is_some() { vec![role_of(policy, process)] } else { policy.roles_of_executables() }
}

/// A connection to a nameserver, which ends here, with its place among all connections.
pub struct Inquiry {
    gateway: Arc<Gateway>,
    process: Option<Process>,
    _place: OwnedSemaphorePermit,
}

impl Inquiry {
    /// Takes a place.
    ///
    /// # Errors
    /// The [`Denial`], which is recorded already: there is none left.
    pub fn begin(gateway: &Arc<Gateway>, nameserver: SocketAddr, process: Option<Process>) -> Result<Self, Denial> {
        match gateway.slots().connection {
            Some(place) => Ok(Self { gateway: Arc::clone(gateway), process, _place: place }),
            None => {
                let denial = over_the_limit(gateway);
                note_refused(gateway, nameserver, process, denial.clone());
                Err(denial)
            }
        }
    }
}

/// Answers queries by TCP (RFC 1035 section 4.2.2), until the program closes or is silent.
pub(super) async fn serve(inquiry: Inquiry, mut stream: TcpStream) {
    let Inquiry { gateway, process, .. } = &inquiry;
    loop {
        let asked = async {
            let mut message = vec![0; usize::from(stream.read_u16().await.ok()?)];
            if message.len() > MAX_QUERY {
                return None;
            }
            stream.read_exact(&mut message).await.ok()?;
            Asked::read(&message)
        };
        let Ok(Some(asked)) = timeout(gateway.limits.request, asked).await else { return };
        let answer = gateway.answer(&asked, process.clone()).await;
        let Some(answer) = encoded(answer.message, u16::MAX) else { return };
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX).to_be_bytes();
        let whole = [&length[..], &answer].concat();
        let said = timeout(gateway.limits.request, stream.write_all(&whole)).await;
        if !said.is_ok_and(|said| said.is_ok()) {
            return;
        }
    }
}

/// A query as it was read.
struct Asked {
    message: Message,
    /// Its question; none if it has not exactly one, or asks for something else than the Internet's records.
    query: Option<Query>,
}

struct Answer {
    message: Message,
    /// Whether the name may be asked for, whatever became of it.
    is_allowed: bool,
}

/// Why there are no records.
enum No {
    /// By the policy.
    Refused,
    /// A fault of DNS.
    Fault(DnsFault),
    /// It is no question that is answered here.
    NotServed,
}

impl From<DnsFault> for No {
    fn from(fault: DnsFault) -> Self {
        Self::Fault(fault)
    }
}

impl Asked {
    fn read(message: &[u8]) -> Option<Self> {
        let message = Message::from_vec(message).ok()?;
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let query = match message.queries.as_slice() {
            [query] if message.metadata.op_code == OpCode::Query && query.query_class() == DNSClass::IN => Some(query.clone()),
            _ => None,
        };
        Some(Self { message, query })
    }

    fn response(&self) -> Message {
        let mut response = Message::response(self.message.metadata.id, self.message.metadata.op_code);
        response.metadata.recursion_desired = self.message.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_queries(self.message.queries.iter().cloned());
        response
    }

    /// The same question without whatever else the program wrote around it.
    fn again(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.message.metadata.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone()?);
        message.to_vec().ok()
    }
}

/// The message, or its head alone where it is longer: the program asks again by TCP.
fn encoded(message: Message, longest: u16) -> Option<Vec<u8>> {
    let whole = message.to_vec().ok()?;
    if whole.len() <= usize::from(longest) { Some(whole) } else { message.truncate().to_vec().ok() }
}

fn record(name: &DnsName, address: IpAddr) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::from(address))
}

fn code(fault: DnsFault) -> ResponseCode {
    match fault {
        DnsFault::NxDomain => ResponseCode::NXDomain,
        DnsFault::NoAddress => ResponseCode::NoError,
        DnsFault::Failed | DnsFault::Timeout => ResponseCode::ServFail,
    }
}

#[cfg(test)]
mod tests;
