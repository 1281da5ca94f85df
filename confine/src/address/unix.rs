//! Names of unix sockets (unix(7)).

use rustix::io::Errno;

/// The length of `sun_path`.
const LONGEST_NAME: usize = 108;

/// Whom a unix address names. An abstract name is of the network namespace, a path of the file system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnixName {
    bytes: [u8; LONGEST_NAME],
    length: u8,
    is_abstract: bool,
}

impl UnixName {
    /// Reads what stands behind the family, as `unix_mkname` of the kernel would.
    ///
    /// # Errors
    /// INVAL: no name, or too long a one.
    pub(super) fn parse(name: &[u8]) -> Result<Self, Errno> {
        let (&first, rest) = name.split_first().ok_or(Errno::INVAL)?;
        let is_abstract = first == 0;
        let text = if is_abstract { rest } else { name.split(|byte| *byte == 0).next().unwrap_or_default() };
        let mut bytes = [0; LONGEST_NAME];
        bytes.get_mut(..text.len()).ok_or(Errno::INVAL)?.copy_from_slice(text);
        if name.len() > LONGEST_NAME {
            return Err(Errno::INVAL);
        }
        Ok(UnixName { bytes, length: u8::try_from(text.len()).map_err(|_| Errno::INVAL)?, is_abstract })
    }

    /// The path, if it is one.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        (!self.is_abstract).then(|| self.text())
    }

    /// The abstract name without the zero before it, if it is one.
    pub(crate) fn abstract_name(&self) -> Option<&[u8]> {
        self.is_abstract.then(|| self.text())
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }
}

impl std::fmt::Debug for UnixName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.is_abstract { "@" } else { "" };
        write!(f, "{mark}{}", self.text().escape_ascii())
    }
}
