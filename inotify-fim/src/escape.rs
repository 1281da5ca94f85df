//! Names of any bytes as one word of plain ASCII, and back: what a line of the manifest needs. Pure.
//!
//! Printable ASCII but the backslash stands for itself; every other octet is `\x` and two lower-case digits. So a name
//! has exactly one form, that form holds no blank, no line end and no terminal's escape, and text that only looks like
//! another does not.

/// The word for these octets.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut word = String::with_capacity(bytes.len());
    escape_into(&mut word, bytes);
    word
}

/// Adds the word for these octets to a text.
pub(crate) fn escape_into(text: &mut String, bytes: &[u8]) {
    // Nearly all names are plain as they are.
    if let Some(plain) = str::from_utf8(bytes).ok().filter(|name| name.bytes().all(is_plain)) {
        return text.push_str(plain);
    }
    for &byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str("\\x");
            push_hex(text, byte);
        }
    }
}

/// The octets that a word stands for; `None` if [`escape`] does not write it.
#[must_use]
pub fn unescape(word: &str) -> Option<Vec<u8>> {
    if word.bytes().all(is_plain) {
        return Some(word.as_bytes().to_vec());
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(word.len()), word.as_bytes());
    while let [first, after @ ..] = rest {
        if let [b'\\', b'x', high, low, after @ ..] = rest {
            let byte = digit(*high)? << 4 | digit(*low)?;
            if is_plain(byte) {
                return None;
            }
            bytes.push(byte);
            rest = after;
        } else if is_plain(*first) {
            bytes.push(*first);
            rest = after;
        } else {
            return None;
        }
    }
    Some(bytes)
}

/// Octets in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    bytes.iter().for_each(|byte| push_hex(&mut text, *byte));
    text
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
    }
}

/// The octets of lower-case hexadecimal.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'\\'
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
