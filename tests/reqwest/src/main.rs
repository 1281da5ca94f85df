//! One GET by reqwest, as a program has it that sets nothing.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let provider = rustls::crypto::ring::default_provider();
    provider.install_default().map_err(|_| "a provider is there already")?;
    let url = std::env::args().nth(1).ok_or("give an address")?;
    print!("{}", reqwest::blocking::get(url)?.text()?);
    Ok(())
}
