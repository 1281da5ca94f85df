//! JSON (RFC 8259) with places. A reader of our own, as the usual ones keep none.

use super::super::error::InjectError;
use super::{MAX_DEPTH, Node, Value, line_of};

/// Reads one value and nothing after it.
pub(super) fn read(text: &str) -> Result<Node, InjectError> {
    let mut reader = Reader { text, at: text.len() - text.trim_start_matches('\u{feff}').len() };
    let node = reader.value(0)?;
    reader.blanks();
    if reader.at < text.len() { Err(reader.wrong("something stands after the end of the JSON")) } else { Ok(node) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

type Read<T> = Result<T, InjectError>;

impl Reader<'_> {
    fn wrong(&self, message: &str) -> InjectError {
        InjectError::Syntax { line: line_of(self.text, self.at), message: message.to_owned() }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes this sign, if it comes next.
    fn takes(&mut self, sign: u8) -> bool {
        self.blanks();
        let is_next = self.next() == Some(sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Read<Node> {
        self.blanks();
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(self.wrong("nested too deep"));
        }
        let value = match self.next() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Scalar { text: self.string()?, quoted: true },
            Some(_) => Value::Scalar { text: self.word()?, quoted: false },
            None => return Err(self.wrong("the JSON ends early")),
        };
        Ok(Node { span: start..self.at, tag: None, anchored: false, meant_by: None, value })
    }

    fn map(&mut self, depth: usize) -> Read<Value> {
        self.at += 1;
        let mut entries = Vec::new();
        if !self.takes(b'}') {
            loop {
                self.blanks();
                if self.next() != Some(b'"') {
                    return Err(self.wrong("a key in double quotes is expected"));
                }
                let key = self.value(depth + 1)?;
                if !self.takes(b':') {
                    return Err(self.wrong("a colon is expected after the key"));
                }
                entries.push((key, self.value(depth + 1)?));
                if !self.another(b'}')? {
                    break;
                }
            }
        }
        Ok(Value::Map { entries, flow: true })
    }

    fn list(&mut self, depth: usize) -> Read<Value> {
        self.at += 1;
        let mut items = Vec::new();
        if !self.takes(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                if !self.another(b']')? {
                    break;
                }
            }
        }
        Ok(Value::List { items, flow: true })
    }

    /// Whether a comma comes, or the end.
    fn another(&mut self, end: u8) -> Read<bool> {
        if self.takes(b',') {
            return Ok(true);
        }
        if self.takes(end) { Ok(false) } else { Err(self.wrong(&format!("`,` or `{}` is expected", char::from(end)))) }
    }

    fn string(&mut self) -> Read<String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.next() {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.wrong("a text has no closing quote")),
            }
        }
        self.decoded(start)
    }

    fn word(&mut self) -> Read<String> {
        let start = self.at;
        while self.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            self.at += 1;
        }
        let word = self.text.get(start..self.at).unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(word) {
            Ok(_) => Ok(word.to_owned()),
            Err(_) => Err(self.wrong("no JSON value")),
        }
    }

    fn decoded(&self, start: usize) -> Read<String> {
        let written = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(written).map_err(|_| self.wrong("no valid JSON text"))
    }
}
