//! HAProxy from Debian, for HTTP/3 from its unstable release, one thread, connections to the origin shared as much as it can.

use std::path::Path;

use xtask::Outcome;

use super::{CONNECTIONS_MAX, Launch, Site};
use crate::process::{words, write_file};
use crate::scenario::Over;

pub(super) fn launch(program: &Path, site: &Site<'_>) -> Outcome<Launch> {
    let file = site.folder.join("haproxy.cfg");
    write_file(&file, configuration(site))?;
    // -db: in the foreground, one process.
    Ok(Launch::new(words([&program, &"-db", &"-q", &"-f", &file])))
}

/// `maxconn` is told, or it would be derived from the descriptors allowed, and refuse to start where those are few.
fn configuration(site: &Site<'_>) -> String {
    let Site { listen, to, .. } = site;
    let tls = site.identity.map_or_else(String::new, |identity| {
        let protocols = if site.over == Over::H3 { "h3" } else { "h2,http/1.1" };
        format!(" ssl crt {} alpn {protocols} ssl-min-ver TLSv1.3", identity.both.display())
    });
    let (datagrams, backlog) = if site.over == Over::H3 { ("quic4@", "") } else { ("", " backlog 4096") };
    let proto = if site.over == Over::Grpc { " proto h2" } else { "" };
    format!(
        "\
global
    nbthread 1
    maxconn {CONNECTIONS_MAX}

defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
    http-reuse always

frontend door
    bind {datagrams}{listen}{backlog}{tls}{proto}
    default_backend origin

backend origin
    server origin {to}{proto} pool-purge-delay 600s
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thread_that_reuses_connections_and_fits_its_descriptors() {
        let text = super::configuration(&super::super::test_site());
        for line in [
            "nbthread 1\n",
            "maxconn 4096\n",
            "http-reuse always\n",
            "bind 127.0.0.1:8001 backlog 4096\n",
            "server origin 127.0.0.1:9001",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("\n    log"));
        let calls = super::configuration(&super::super::test_site_with_grpc());
        for line in ["bind 127.0.0.1:8001 backlog 4096 proto h2\n", "server origin 127.0.0.1:9001 proto h2 "] {
            assert!(calls.contains(line), "{line}");
        }
        let identity = crate::tls::Identity::at("/tmp/tls".as_ref());
        let secure = super::configuration(&super::super::test_site_with_tls(&identity));
        let quic = super::configuration(&super::super::test_site_with_h3(&identity));
        assert!(quic.contains("bind quic4@127.0.0.1:8001 ssl crt /tmp/tls/both.pem alpn h3 ssl"), "{quic}");
        assert!(secure.contains("backlog 4096 ssl crt /tmp/tls/both.pem alpn h2,http/1.1"), "{secure}");
    }
}
