//! Drives the wire readers over a client's socket until they give a request. What a protocol refuses in its own words
//! (a SOCKS reply code, a 431) is said here; every other refusal goes through `reply`.

use egret_policy::{Denial, Flight, Host, Name, Reason, Sni, Target};

use crate::client::Client;
use crate::fault::Stop;
use crate::limits::{MAX_HELLO, MAX_SOCKS};
use crate::record::Via;
use crate::reply::Answer;
use crate::sniff::Spoken;
use crate::wire::client_hello::{Hello, Joiner};
use crate::wire::{Progress, http, socks4, socks5};
use bytes::Buf;

/// A redirected TLS client names a host and no port; it meant the port of HTTPS.
const TLS_PORT: u16 = 443;

/// What a client asked for.
pub(crate) struct Asked {
    pub(crate) target: Target,
    /// Its proxy user name.
    pub(crate) user: Option<String>,
    /// The first flight, where that was the request.
    pub(crate) flight: Option<Flight>,
}

/// How the client asks, for the record. Absolute-form HTTP does not come here.
pub(crate) fn via(spoken: Spoken) -> Via {
    match spoken {
        Spoken::Connect => Via::Connect,
        Spoken::Http => Via::Forward,
        Spoken::Socks5 => Via::Socks5,
        Spoken::Socks4 => Via::Socks4,
        Spoken::Tls => Via::Tls,
    }
}

/// Reads the request.
pub(crate) async fn read(client: &mut Client, via: Via) -> Result<Asked, Stop> {
    match via {
        Via::Connect | Via::Forward => connect(client).await,
        Via::Socks5 => socks5(client).await,
        Via::Socks4 => socks4(client).await,
        // A confined program asks by connect(2), not by its bytes.
        Via::Tls | Via::Confined => tls(client).await,
    }
}

async fn connect(client: &mut Client) -> Result<Asked, Stop> {
    let answer = advance(client, http::connect).await?;
    match answer {
        Ok(http::Connect { target, user }) => Ok(Asked { target, user, flight: None }),
        Err((kind, why)) => {
            let stop = Stop::malformed(why);
            let too_large = kind == http::Refused::TooLarge;
            let answer = if too_large { Answer::head_too_large() } else { Answer::of(&stop, None) };
            refuse_with(client, &answer.into_bytes()).await?;
            Err(stop)
        }
    }
}

async fn socks5(client: &mut Client) -> Result<Asked, Stop> {
    let method = advance(client, socks5::greeting).await?;
    if method == socks5::NO_METHOD {
        refuse_with(client, &[5, socks5::NO_METHOD]).await?;
        return Err(unsupported("the client offers no SOCKS5 method that is served (none, or user name)"));
    }
    client.say(&[5, method]).await?;
    client.greeted = true;
    let mut user = None;
    if method == socks5::USER_PASSWORD {
        user = match advance(client, socks5::credentials).await {
            Ok(user) => user,
            Err(stop) => {
                if matches!(stop, Stop::Denied(_)) {
                    refuse_with(client, &socks5::CREDENTIALS_FAILED).await?;
                }
                return Err(stop);
            }
        };
        client.say(&socks5::CREDENTIALS_TAKEN).await?;
    }
    match advance(client, socks5::request).await? {
        socks5::Asked::Connect(target) => Ok(Asked { target, user, flight: None }),
        socks5::Asked::Refused(code, why) => {
            refuse_with(client, &socks5::reply(code)).await?;
            Err(if code == socks5::Reply::Failure { Stop::malformed(why) } else { unsupported(why) })
        }
    }
}

async fn socks4(client: &mut Client) -> Result<Asked, Stop> {
    match advance(client, socks4::request).await? {
        socks4::Asked::Connect(target) => Ok(Asked { target, user: None, flight: None }),
        socks4::Asked::Malformed(why) => Err(Stop::malformed(why)),
        socks4::Asked::Unsupported(why) => Err(unsupported(why)),
    }
}

async fn tls(client: &mut Client) -> Result<Asked, Stop> {
    let flight = hello(client).await?;
    let name = match &flight {
        Flight::Tls { sni: Sni::One(name), .. } => name.clone(),
        Flight::Tls { sni, .. } => return Err(no_single_name(sni).into()),
        _ => return Err(no_hello().into()),
    };
    Ok(Asked { target: named(name), user: None, flight: Some(flight) })
}

/// Reads a whole ClientHello; the bytes stay with the client.
pub(crate) async fn hello(client: &mut Client) -> Result<Flight, Stop> {
    let mut joiner = Joiner::default();
    loop {
        match joiner.read(&client.said) {
            Progress::Done(Hello { sni, ech }, _) => return Ok(Flight::Tls { sni, ech }),
            Progress::Never(_) => return Ok(Flight::Malformed),
            Progress::More if client.said.len() > MAX_HELLO => return Ok(Flight::Malformed),
            Progress::More => client.hear().await?,
        }
    }
}

/// Reads one message and takes its bytes.
async fn advance<T>(client: &mut Client, reader: impl Fn(&[u8]) -> Progress<T>) -> Result<T, Stop> {
    loop {
        match reader(&client.said) {
            Progress::Done(message, length) => {
                client.said.advance(length.min(client.said.len()));
                return Ok(message);
            }
            Progress::Never(why) => return Err(Stop::malformed(why)),
            Progress::More if client.said.len() > crate::limits::MAX_HEAD.max(MAX_SOCKS) => {
                return Err(Stop::malformed("the request is too long"));
            }
            Progress::More => client.hear().await?,
        }
    }
}

/// Says a refusal in the protocol's own words.
async fn refuse_with(client: &mut Client, bytes: &[u8]) -> Result<(), Stop> {
    client.answered = true;
    Ok(client.say(bytes).await?)
}

fn unsupported(why: impl Into<String>) -> Stop {
    Denial::new(Reason::Unsupported, why, "use SOCKS5 CONNECT or an HTTP proxy URL").into()
}

fn named(name: Name) -> Target {
    Target { host: Host::Name(name), port: TLS_PORT }
}

fn no_single_name(sni: &Sni) -> Denial {
    let (reason, what) = match sni {
        Sni::Invalid(text) => (Reason::SniInvalid, format!("its SNI {text} is no DNS name")),
        Sni::Many => (Reason::SniAmbiguous, "its ClientHello names two servers".into()),
        Sni::Absent | Sni::One(_) => (Reason::SniMissing, "its ClientHello names no server".into()),
    };
    let detail = format!("a TLS client is refused: {what}; if it was given an https:// proxy URL, make that http://");
    Denial::new(reason, detail, "a TLS client that is redirected here must send SNI")
}

fn no_hello() -> Denial {
    Denial::new(Reason::HelloMalformed, "a redirected TLS client is refused: its ClientHello cannot be read", "mend the client")
}
