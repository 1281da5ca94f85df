//! S3 buckets by host name. In a virtual-hosted name the bucket stands in the SNI; in a path-style name it stands in
//! the encrypted path, where nobody without the keys can see it.
//!
//! Forms: Amazon S3 user guide, "Virtual hosting of general purpose buckets", "Dual-stack endpoints", "Access points".

use std::fmt;

use crate::name::Name;

/// A bucket name, in which `*` stands for any characters but a dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketPattern(Box<str>);

/// Buckets, in these regions; no region means all of the partition `aws`. In others (China, GovCloud) the same name may be
/// somebody else's bucket: bucket names are unique in a partition (Amazon S3 user guide, "Bucket naming rules").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct S3Rule {
    /// Bucket names, or `NAME-ACCOUNT` of an access point.
    pub buckets: Vec<BucketPattern>,
    /// Region codes such as `eu-west-1`.
    pub regions: Vec<Box<str>>,
}

/// What a host name says about S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum S3Host<'a> {
    /// The bucket is in the name. Global and accelerated names carry no region.
    Bucket { bucket: &'a str, region: Option<&'a str> },
    /// An endpoint whose bucket is in the path.
    PathStyle,
}

impl BucketPattern {
    /// Reads a bucket name with stars; `None` if it holds what a bucket name cannot.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*".contains(c);
        let specific = text.chars().any(|c| c.is_ascii_alphanumeric());
        (specific && text.len() <= 63 && text.chars().all(allowed)).then(|| Self(text.into()))
    }

    /// The bucket's name, if the pattern is one.
    pub(crate) fn whole(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    fn matches(&self, bucket: &str) -> bool {
        glob(self.0.as_bytes(), bucket.as_bytes())
    }
}

/// Iterative star matching: on a mismatch the last star takes one more character, so the cost is at most the
/// product of the two lengths (63 x 253).
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else {
            match star {
                Some((at, taken)) if text[taken] != b'.' => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                _ => return false,
            }
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

impl S3Rule {
    /// Whether the name is a virtual-hosted name of one of the buckets, in one of the regions. A name without a
    /// region (global, accelerated) is taken for `us-east-1`, whose endpoint it is; in China there is none of the kind.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        let Some(S3Host::Bucket { bucket, region }) = S3Host::of(name) else { return false };
        let is_of_china = name.as_str().ends_with(".cn");
        let region = match region {
            Some(region) if region.starts_with("cn-") == is_of_china => region,
            None if !is_of_china => "us-east-1",
            _ => return false,
        };
        let named = || self.regions.iter().any(|r| **r == *region);
        let in_region = if self.regions.is_empty() { is_of_partition_aws(region) } else { named() };
        in_region && self.buckets.iter().any(|pattern| pattern.matches(bucket))
    }
}

impl<'a> S3Host<'a> {
    /// The bucket in a virtual-hosted name.
    pub(crate) fn bucket_of(name: &'a Name) -> Option<&'a str> {
        match Self::of(name)? {
            Self::Bucket { bucket, .. } => Some(bucket),
            Self::PathStyle => None,
        }
    }

    pub(crate) fn of(name: &'a Name) -> Option<Self> {
        let text = name.as_str();
        let rest = text.strip_suffix(".amazonaws.com").or_else(|| text.strip_suffix(".amazonaws.com.cn"))?;
        let (before, last) = cut(rest);
        if is_region(last) {
            return Self::regional(before?, last);
        }
        match last {
            "s3" => Some(Self::bucket_or_path(before, None)),
            "s3-accelerate" => Some(Self::bucket_or_path(before, None)),
            "dualstack" => match cut(before?) {
                (before, "s3-accelerate") => Some(Self::bucket_or_path(before, None)),
                _ => None,
            },
            _ => {
                let region = last.strip_prefix("s3-").filter(|region| is_region(region))?;
                Some(Self::bucket_or_path(before, Some(region)))
            }
        }
    }

    fn regional(rest: &'a str, region: &'a str) -> Option<Self> {
        let rest = rest.strip_suffix("dualstack").and_then(|r| r.strip_suffix('.')).unwrap_or(rest);
        let (before, service) = cut(rest);
        match service {
            "s3" | "s3-fips" | "s3-accesspoint" | "s3-accesspoint-fips" => Some(Self::bucket_or_path(before, Some(region))),
            _ => None,
        }
    }

    fn bucket_or_path(bucket: Option<&'a str>, region: Option<&'a str>) -> Self {
        match bucket {
            Some(bucket) => Self::Bucket { bucket, region },
            None => Self::PathStyle,
        }
    }
}

/// The last label, and what stands before it. Reading from the right keeps a bucket named `x.s3.eu-west-1` a bucket.
fn cut(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('.') {
        Some((before, last)) => (Some(before), last),
        None => (None, text),
    }
}

/// `eu-west-1`, `us-gov-east-1`, `ap-southeast-5`: letters in groups, then one number.
fn is_region(label: &str) -> bool {
    let mut parts: Vec<&str> = label.split('-').collect();
    let number = parts.pop().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let words = parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase()));
    number && words && parts.len() >= 2 && parts[0].len() == 2
}

fn is_of_partition_aws(region: &str) -> bool {
    !["cn-", "us-gov-", "us-iso"].iter().any(|prefix| region.starts_with(prefix))
}

impl fmt::Display for BucketPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for S3Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buckets: Vec<&str> = self.buckets.iter().map(|b| &*b.0).collect();
        write!(f, "s3 {}", buckets.join(" "))?;
        if !self.regions.is_empty() {
            write!(f, " in {}", self.regions.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
