//! Which ports a rule speaks of.

use std::fmt;

/// An inclusive range, `first <= last`, never with port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A set of ports. An empty list of ranges means every port; only deny rules are built that way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports(Vec<PortRange>);

impl PortRange {
    /// A range of ports; `None` if it is empty or holds port 0.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// Whether it holds some port beside these two, of which the first is the lower.
    pub(crate) fn has_beside(self, low: u16, high: u16) -> bool {
        let known = [low, high].into_iter().filter(|port| self.holds(*port)).count();
        usize::from(self.last - self.first) + 1 > known
    }

    /// Whether the port is in it.
    pub(crate) fn holds(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Reads `443` or `6379-6381`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(number(first)?, number(last)?)
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

impl Ports {
    /// Every port: what a deny rule means when it writes none.
    #[must_use]
    pub fn every() -> Self {
        Self(Vec::new())
    }

    /// One port, which is not 0.
    #[must_use]
    pub fn one(port: u16) -> Self {
        Self(vec![PortRange { first: port, last: port }])
    }

    /// The ports of these ranges; `None` if there is no range.
    #[must_use]
    pub fn of(ranges: Vec<PortRange>) -> Option<Self> {
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// Whether these are all of the others, and maybe more.
    pub(crate) fn cover(&self, others: &Self) -> bool {
        let within_one = |range: &PortRange| self.0.iter().any(|own| own.first <= range.first && range.last <= own.last);
        self.0.is_empty() || (!others.0.is_empty() && others.0.iter().all(within_one))
    }

    /// Whether some port is in both.
    pub(crate) fn meet(&self, others: &Self) -> bool {
        let meets = |range: &PortRange| self.0.iter().any(|own| own.first <= range.last && range.first <= own.last);
        self.0.is_empty() || others.0.is_empty() || others.0.iter().any(meets)
    }

    /// What both have in common; nothing where one of them is every port.
    pub(crate) fn common<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = PortRange> + 'a {
        let both = self.0.iter().flat_map(|own| others.0.iter().map(move |other| (own, other)));
        both.filter_map(|(own, other)| PortRange::new(own.first.max(other.first), own.last.min(other.last)))
    }

    /// The first and the last port of each range; none where these are every port.
    pub(crate) fn ends(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|range| [range.first, range.last])
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.holds(port))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any port");
        }
        let ranges: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

#[cfg(test)]
mod tests;
