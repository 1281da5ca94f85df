//! The proof that events arrive: a directory that is made and removed again, so that nobody reads half of a file, and
//! nothing is left.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

/// What its name begins with; 16 hexadecimal digits follow, another number each time.
const PREFIX: &[u8] = b".egret-canary-";

/// Whether a path has the name of a proof, ours or another agent's.
pub(crate) fn is_one(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.strip_prefix(PREFIX).is_some_and(|digits| digits.len() == 16 && digits.iter().all(is_digit))
}

/// Makes one in a directory, and removes it. Gives its name.
///
/// # Errors
///
/// mkdirat(2) or unlinkat(2) fail: most often that nothing may be written there, or that somebody put something into it
/// before it was removed, in which case it stays, for all to see.
pub(crate) fn sing(directory: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let name = name();
    let text = OsStr::from_bytes(&name);
    rustix::fs::mkdirat(directory, text, Mode::RWXU)?;
    rustix::fs::unlinkat(directory, text, AtFlags::REMOVEDIR)?;
    Ok(name)
}

fn name() -> Vec<u8> {
    // Keys from the kernel's source of chance: it need not be secret, but no two agents should make the same.
    let number = RandomState::new().build_hasher().finish();
    [PREFIX, format!("{number:016x}").as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_is_known_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(folder.path()).unwrap();
        let (one, other) = (sing(open.as_fd()).unwrap(), sing(open.as_fd()).unwrap());
        assert_ne!(one, other);
        assert!(is_one(&one) && is_one(&[b"/a/b/", other.as_slice()].concat()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for no in [".egret-canary-", ".egret-canary-0123456789ABCDEF", ".egret-canary-0123456789abcdef0", "x/.egret-canary-0/y"] {
            assert!(!is_one(no.as_bytes()), "{no}");
        }
    }
}
