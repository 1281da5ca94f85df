//! Diagnostics as SARIF 2.1.0 (OASIS), which code review systems show beside the line.

use serde_json::{Value, json};

use crate::config::diagnose::{Code, Diagnostic, Diagnostics, Severity};

/// One log with one run.
pub(super) fn log(found: &Diagnostics) -> Value {
    let rules: Vec<Value> = Code::ALL
        .iter()
        .filter(|code| found.all.iter().any(|one| one.code == **code))
        .map(|code| json!({ "id": code.as_str(), "shortDescription": { "text": code.meaning() } }))
        .collect();
    let results: Vec<Value> = found.all.iter().map(|one| result(found, one)).collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "egret", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(found: &Diagnostics, one: &Diagnostic) -> Value {
    let level = match one.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let text = match &one.help {
        Some(help) => format!("{}. Help: {help}", one.message),
        None => one.message.clone(),
    };
    json!({
        "ruleId": one.code.as_str(),
        "level": level,
        "message": { "text": text },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&found.origin) },
            "region": {
                "startLine": one.line,
                "startColumn": one.column,
                "endLine": one.line,
                "endColumn": found.end_column(one),
            },
        } }],
    })
}

/// A path as a relative reference (RFC 3986): everything but unreserved characters and slashes is percent-encoded.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
