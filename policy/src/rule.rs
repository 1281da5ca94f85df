//! A rule as the policy keeps it, and the draft it is made from. Rules hold values that were already read strictly
//! (`name`, `pattern`, `ports`); reading the policy file itself is somebody else's work.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::decide::UnixTime;
use crate::pattern::NamePattern;
use crate::policy::RoleId;
use crate::ports::Ports;
use crate::s3::S3Rule;

/// Whether a rule allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Lets a request through, if no deny rule matches.
    Allow,
    /// Beats every allow rule.
    Deny,
}

/// Whether verdicts bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Name verdicts are reported as `would_deny` and let through.
    Audit,
    /// Verdicts bind.
    Enforce,
}

/// What the first flight of a connection must be, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A TLS ClientHello whose SNI is the requested name.
    Tls,
    /// Cleartext HTTP/1 whose every request names the requested host.
    Http,
    /// Whichever of the two it turns out to be is checked; anything else passes.
    Any,
    /// Opaque bytes, not looked at.
    Tcp,
}

impl Protocol {
    /// What a port means where no rule says: 443 TLS, 80 HTTP, others whatever comes.
    #[must_use]
    pub fn of_port(port: u16) -> Self {
        match port {
            443 => Self::Tls,
            80 => Self::Http,
            _ => Self::Any,
        }
    }
}

/// Whom a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Names; never matches a literal address.
    Name(NamePattern),
    /// Addresses; never matches a name.
    Net(IpNet),
    /// Buckets, in virtual-hosted names.
    S3(S3Rule),
}

/// The stable identity of a rule: what its author wrote as `id:`, or a hash of its content. Copies share their text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

/// A rule in force.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) id: RuleId,
    content: u64,
    pub(crate) effect: Effect,
    pub(crate) to: Vec<(To, Ports)>,
    pub(crate) roles: Vec<RoleId>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) within: Vec<IpNet>,
    pub(crate) mode: Option<Mode>,
    pub(crate) expires: Option<UnixTime>,
    pub(crate) note: Option<String>,
    pub(crate) line: u32,
}

/// A rule on its way into a [`Draft`](crate::Draft).
#[derive(Clone, Debug)]
pub struct RuleDraft {
    /// The author's id; without it, a hash of the content.
    pub id: Option<String>,
    /// Whom it speaks of, and on which ports; `None` means 443 in an allow rule and every port in a deny rule.
    pub to: Vec<(To, Option<Ports>)>,
    /// Which roles it is for; empty means all.
    pub roles: Vec<RoleId>,
    /// What the first flight must be; `None` means by port.
    pub protocol: Option<Protocol>,
    /// Where the answers of its names may and must lie.
    pub within: Vec<IpNet>,
    /// Its own mode, nearer than the section's and the file's.
    pub mode: Option<Mode>,
    /// When it stops matching.
    pub expires: Option<UnixTime>,
    /// The author's remark.
    pub note: Option<String>,
    /// Its line in the policy file, from 1; 0 where there is no file.
    pub line: u32,
}

impl RuleDraft {
    /// A rule for these.
    #[must_use]
    pub fn new(to: Vec<(To, Option<Ports>)>) -> Self {
        Self {
            id: None,
            to,
            roles: Vec::new(),
            protocol: None,
            within: Vec::new(),
            mode: None,
            expires: None,
            note: None,
            line: 0,
        }
    }

    /// The short form: this name, TCP 443.
    #[must_use]
    pub fn name(pattern: NamePattern) -> Self {
        Self::new(vec![(To::Name(pattern), None)])
    }

    /// `role_names` are those of the draft, by which roles are told in the hash.
    pub(crate) fn build(self, effect: Effect, role_names: &[Arc<str>]) -> Rule {
        let default = match effect {
            Effect::Allow => Ports::one(443),
            Effect::Deny => Ports::every(),
        };
        let to: Vec<_> = self.to.into_iter().map(|(to, ports)| (to, ports.unwrap_or_else(|| default.clone()))).collect();
        let mut rule = Rule {
            id: RuleId(Arc::default()),
            content: 0,
            effect,
            to,
            roles: self.roles,
            protocol: self.protocol,
            within: self.within,
            mode: self.mode,
            expires: self.expires,
            note: self.note,
            line: self.line,
        };
        rule.content = rule.hash(role_names);
        rule.id = match self.id {
            Some(id) => RuleId(id.into()),
            None => RuleId(format!("{:012x}", rule.content >> 16).into()),
        };
        rule
    }
}

impl Rule {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> &RuleId {
        &self.id
    }

    /// Whether it allows or denies.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whom it speaks of, and on which ports.
    #[must_use]
    pub fn to(&self) -> &[(To, Ports)] {
        &self.to
    }

    /// Where the answers of its names may and must lie; empty for ordinary space.
    #[must_use]
    pub fn within(&self) -> &[IpNet] {
        &self.within
    }

    /// Its own mode, if it has one.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Its line in the policy file, from 1; 0 where there is no file.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The author's remark.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// When it stops matching.
    #[must_use]
    pub fn expires(&self) -> Option<UnixTime> {
        self.expires
    }

    pub(crate) fn is_for(&self, role: RoleId) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }

    pub(crate) fn is_expired(&self, now: UnixTime) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }

    pub(crate) fn protocol_on(&self, port: u16) -> Protocol {
        self.protocol.unwrap_or_else(|| Protocol::of_port(port))
    }

    /// A hash of everything that changes what the rule does; ids that nobody wrote are twelve hexadecimal digits of it.
    /// Notes and lines are left out, so that it survives an edited comment and a moved rule.
    #[must_use]
    pub fn content(&self) -> u64 {
        self.content
    }

    /// FNV-1a, 64 bits.
    fn hash(&self, role_names: &[Arc<str>]) -> u64 {
        let roles: Vec<&Arc<str>> = self.roles.iter().map(|role| role.name_in(role_names)).collect();
        let content = format!(
            "{:?} {} {:?} {:?} {:?} {:?} {:?}",
            self.effect, self, roles, self.protocol, self.within, self.mode, self.expires
        );
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in content.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash
    }
}

impl To {
    /// Whether this speaks of everything the other speaks of. Of buckets only those that are written alike.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(NamePattern::Below(apex)), Self::Name(NamePattern::Below(lower))) => {
                apex == lower || lower.parents().any(|parent| parent == apex.as_str())
            }
            (Self::Name(pattern), Self::Name(NamePattern::Exact(name))) => pattern.matches(name),
            (Self::Net(net), Self::Net(inner)) => net.contains(inner),
            (Self::S3(buckets), Self::S3(others)) => buckets == others,
            _ => false,
        }
    }
}

impl RuleId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(pattern) => pattern.fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::S3(rule) => rule.fmt(f),
        }
    }
}

/// `api.example.com 443, *.example.com 8443`: the targets with their ports.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (to, ports)) in self.to.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{to} ({ports})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Any => "any",
            Self::Tcp => "tcp",
        })
    }
}
