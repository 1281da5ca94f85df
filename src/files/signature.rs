//! Signatures of manifests, as minisign(1) writes and reads them: Ed25519 over BLAKE2b-512 of the text, in `NAME.minisig`
//! beside it.
//!
//! Two crates of one author. `minisign` signs, with the operator's own key. `minisign-verify` judges what may be anybody's:
//! it depends on nothing and takes no length on trust, where the other one panics at a signature that is too short.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::{SecretKey, SecretKeyBox};
use minisign_verify::Error;

use super::trusted::read_bounded;

/// Octets that a key or a signature may have. Their comments are the only part without a length of its own.
const LONGEST: u64 = 16 * 1024;

/// Octets of a secret key.
const SECRET: usize = 158;

/// The variable that a password is taken from, where nobody sits at a terminal.
pub(crate) const PASSWORD: &str = "EGRET_SIGN_PASSWORD";

/// Where the signature of a file is.
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// A key that signatures are checked with.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey(minisign_verify::PublicKey);

impl PublicKey {
    /// The key itself as it stands in its file, 56 characters of base64, or the file.
    ///
    /// # Errors
    /// There is no such file, or it holds no public key.
    pub(crate) fn find(key: &str) -> anyhow::Result<Self> {
        if let Ok(key) = minisign_verify::PublicKey::from_base64(key) {
            return Ok(Self(key));
        }
        let help =
            || format!("no public key {key:?}: give the .pub file that `minisign -G` wrote, or the base64 in its second line");
        let decoded = text(Path::new(key)).and_then(|text| Ok(minisign_verify::PublicKey::decode(&text)?));
        decoded.map(Self).with_context(help)
    }

    /// Whether the signature beside a file is this key's, over this text.
    ///
    /// # Errors
    /// It is not there, or is none, or of another key, or of another text.
    pub(crate) fn verify(&self, file: &Path, signed: &[u8]) -> anyhow::Result<()> {
        let beside = beside(file);
        let text = text(&beside)
            .with_context(|| format!("{} is not signed: `minisign -S -m {}` signs it", file.display(), file.display()))?;
        let judged = minisign_verify::Signature::decode(&text).and_then(|signature| self.0.verify(signed, &signature, false));
        judged.map_err(|error| anyhow!("{}: {}", beside.display(), why(&error)))
    }
}

fn why(error: &Error) -> &'static str {
    match error {
        Error::UnexpectedKeyId => "it is signed with another key than the one given",
        Error::InvalidSignature => "the signature is not of this text: one of the two was changed",
        Error::UnexpectedAlgorithm | Error::UnsupportedLegacyMode => "it is signed in minisign's old way: sign again without -l",
        _ => "it is no signature of minisign",
    }
}

/// A key that signs.
pub(crate) struct Signer(SecretKey);

impl Signer {
    /// The key in a file that `minisign -G` wrote. The password is taken from `EGRET_SIGN_PASSWORD`, or asked for at a
    /// terminal; a key of `minisign -G -W` needs none. It takes about a second, and for that 1 GiB at most.
    ///
    /// # Errors
    /// It cannot be read, is none, or the password is missing or wrong.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let named = || format!("the secret key {}", file.display());
        let text = text(file).with_context(named)?;
        let key = if has_password(&text).with_context(named)? {
            let password = password().with_context(named)?;
            SecretKeyBox::from(text).into_secret_key(Some(password))
        } else {
            // Not by way of the box: it wants a checksum, of which minisign(1) writes none into such a key.
            SecretKey::from_bytes(&octets(&text).with_context(named)?)
        };
        key.map(Self).map_err(|error| anyhow!("{error}")).with_context(named)
    }

    /// The text of `NAME.minisig`. The comment in it is signed too.
    ///
    /// # Errors
    /// The kernel gives no random numbers, or the signature does not hold: then the key's halves do not fit.
    pub(crate) fn sign(&self, text: &str, comment: &str) -> anyhow::Result<String> {
        let key = minisign::PublicKey::from_secret_key(&self.0).map_err(|error| anyhow!("{error}"))?;
        let signed = minisign::sign(Some(&key), &self.0, text.as_bytes(), Some(comment), Some("signature by egret"));
        let signature = signed.map_err(|error| anyhow!("{error}"))?.into_string();
        // Nobody is given a signature that others would refuse.
        let judge = minisign_verify::PublicKey::from_base64(&key.to_base64())?;
        judge.verify(text.as_bytes(), &minisign_verify::Signature::decode(&signature)?, false)?;
        Ok(signature)
    }
}

/// The second line of a secret key: algorithm, what the password is made into a key with, checksum's kind, and the rest.
fn octets(text: &str) -> anyhow::Result<Vec<u8>> {
    let octets = text.lines().nth(1).and_then(|line| STANDARD.decode(line.trim()).ok());
    octets.filter(|octets| octets.len() == SECRET && octets.starts_with(b"Ed")).context("it is no secret key of minisign")
}

fn has_password(text: &str) -> anyhow::Result<bool> {
    Ok(octets(text)?[2..4] != [0, 0])
}

fn password() -> anyhow::Result<String> {
    if let Some(password) = std::env::var_os(PASSWORD) {
        return password.into_string().map_err(|_| anyhow!("{PASSWORD} is not UTF-8"));
    }
    if !std::io::stdin().is_terminal() {
        bail!("it has a password, and there is no terminal to ask for it: set {PASSWORD}");
    }
    rpassword::prompt_password("Password of the secret key: ").context("the password cannot be read")
}

fn text(file: &Path) -> anyhow::Result<String> {
    String::from_utf8(read_bounded(file, LONGEST)?).map_err(|_| anyhow!("{} is no text", file.display()))
}

#[cfg(test)]
mod tests;
