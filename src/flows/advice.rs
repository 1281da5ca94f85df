//! What to set so that a runtime goes through the proxy: what was measured of clients that ignore the usual variables.

/// By what the executable's name begins with, and what to do.
const BY_NAME: &[(&str, &str)] = &[
    (
        "node",
        "Node reads the proxy variables only from version 24 on with NODE_USE_ENV_PROXY=1 ; agents of \
         libraries, as the AWS SDK's, with `egret env --runtime node-agents`",
    ),
    ("java", "Java reads no proxy variables: set the JAVA_TOOL_OPTIONS that `egret env --runtime java` prints"),
    (
        "python",
        "aiohttp reads the proxy variables only with ClientSession(trust_env=True); requests, httpx, urllib and boto3 read them",
    ),
    ("php", "PHP streams read no proxy variables: use its curl, or set a stream context with `proxy` and `request_fulluri`"),
    ("ruby", "Ruby reads http_proxy for http and https alike, and HTTPS_PROXY not at all: set http_proxy"),
    ("curl", "curl reads http_proxy in lower case only, and HTTPS_PROXY; --noproxy, NO_PROXY or a .curlrc goes before them"),
    ("wget", "wget reads http_proxy and https_proxy in lower case only"),
    ("perl", "LWP reads the proxy variables with PERL_LWP_ENV_PROXY=1 (`egret env --runtime perl`), or env_proxy => 1"),
    ("dotnet", "HttpClient reads HTTPS_PROXY unless its handler has UseProxy = false"),
    (
        "git",
        "git reads http_proxy in lower case, HTTPS_PROXY, and http.proxy of its configuration; ssh:// goes around: use https://",
    ),
    ("ssh", "ssh reads no proxy variables: set ProxyCommand nc -X connect -x 127.0.0.1:3128 %h %p"),
];

/// For all others.
const OTHERS: &str = "set HTTP_PROXY and HTTPS_PROXY in both cases (`egret env` prints them); a client that ignores them needs a setting of \
                      its own, or egret as entrypoint: `egret run -- CMD`";

/// For datagrams, whoever sends them.
const DATAGRAMS: &str = "UDP does not pass through a proxy: name the address under `direct:` if it is meant, or let egret start the app \
                         (`egret run -- CMD`)";

/// What to do about an executable; `None` for none.
pub(crate) fn of(exe: &str, protocol: &str) -> Option<&'static str> {
    if protocol == "udp" {
        return Some(DATAGRAMS);
    }
    let name = exe.strip_suffix(" (deleted)").unwrap_or(exe).rsplit('/').next().filter(|name| !name.is_empty())?;
    let known = BY_NAME.iter().find(|(begins, _)| name.starts_with(begins));
    Some(known.map_or(OTHERS, |(_, advice)| advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_the_names_of_their_executables() {
        assert!(of("/usr/bin/python3.11", "tcp").is_some_and(|advice| advice.contains("trust_env")));
        assert!(of("/opt/java/bin/java (deleted)", "tcp").is_some_and(|advice| advice.contains("JAVA_TOOL_OPTIONS")));
        assert_eq!(of("/app/server", "tcp"), Some(OTHERS));
        assert_eq!(of("/app/server", "udp"), Some(DATAGRAMS));
        assert_eq!(of("/", "tcp"), None);
    }

    /// The matrix of clients is what was measured.
    #[test]
    fn whatever_goes_around_in_the_matrix_of_clients_has_advice_of_its_own() {
        let rows = include_str!("../../docs/clients.md").lines().filter(|line| line.contains("| around |"));
        let runtimes: Vec<&str> = rows.map(|row| row.split('|').nth(3).expect("the runtime").trim()).collect();
        assert!(runtimes.contains(&"node") && runtimes.contains(&"php"), "{runtimes:?}");
        for runtime in runtimes {
            assert!(of(&format!("/usr/bin/{runtime}"), "tcp").is_some_and(|advice| advice != OTHERS), "{runtime}");
        }
    }
}
