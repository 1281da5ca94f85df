//! Bytes that look random and are the same each time, and a checksum to compare a transfer by its length and
//! sixteen hex digits. No cryptography is meant.

/// The first `count` bytes of the stream that [`Payload`] makes.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    Payload::new().fill(&mut bytes);
    bytes
}

/// What an upstream answers to an upload of `bytes`: their length and checksum.
pub(crate) fn receipt(bytes: &[u8]) -> String {
    let mut sum = Checksum::new();
    sum.add(bytes);
    sum.receipt()
}

/// An xorshift64 generator with a fixed seed.
pub(crate) struct Payload {
    state: u64,
}

impl Payload {
    pub(crate) fn new() -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Goes on where the last call ended, as long as each call but the last asks for a multiple of 8 bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

/// 64-bit FNV-1a over whatever is added, and how much that was.
pub(crate) struct Checksum {
    hash: u64,
    length: u64,
}

impl Checksum {
    pub(crate) fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, length: 0 }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.length += bytes.len() as u64;
    }

    pub(crate) fn receipt(&self) -> String {
        format!("{} {:016x}\n", self.length, self.hash)
    }
}
