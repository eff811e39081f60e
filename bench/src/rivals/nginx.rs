//! nginx from Debian, for HTTP/3 from its unstable release. Keep-alive to the origin has to be asked for: HTTP/1.1, no `Connection` header, a pool.

use std::fmt::Display;
use std::path::Path;

use xtask::Outcome;

use super::{CONNECTIONS_MAX, Launch, Site};
use crate::process::{words, write_file};
use crate::scenario::Over;
use crate::tls::Identity;

pub(super) fn launch(program: &Path, site: &Site<'_>) -> Outcome<Launch> {
    let file = site.folder.join("nginx.conf");
    write_file(&file, configuration(site))?;
    Ok(Launch::new(words([&program, &"-p", &site.folder, &"-c", &file])))
}

const PROXY: &str = "\
proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffer_size 16k;
            proxy_buffers 16 32k;
            proxy_busy_buffers_size 128k;
            proxy_max_temp_file_size 0;";

/// How every configuration of nginx here begins: in the foreground, with all that it writes below `root`, and so many workers, descriptors and
/// connections a worker.
pub(crate) fn preamble(root: impl Display, workers: usize, descriptors: usize, connections: usize) -> String {
    format!(
        "\
daemon off;
user root;
pid {root}/pid;
error_log {root}/error.log crit;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}"
    )
}

/// Buffers hold a head and 512 KiB of body, so that nothing touches a disk and a large answer moves in large pieces.
fn configuration(site: &Site<'_>) -> String {
    let Site { listen, to, folder, .. } = site;
    let root = folder.display();
    let (how, tls) = match site.identity {
        None if site.over == Over::Grpc => (" http2", String::new()),
        None => ("", String::new()),
        Some(Identity { cert, key, .. }) => (
            if site.over == Over::H3 { " quic" } else { " ssl http2" },
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
                cert.display(),
                key.display()
            ),
        ),
    };
    let (backlog, quic) = if site.over == Over::H3 { ("", " quic_gso on;") } else { (" backlog=4096", "") };
    let pass = if site.over == Over::Grpc { "grpc_pass grpc://origin;" } else { PROXY };
    let connections = 2 * CONNECTIONS_MAX;
    let preamble = preamble(&root, 1, 16_384, connections);
    format!(
        "\
{preamble}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    upstream origin {{
        server {to};
        keepalive {CONNECTIONS_MAX};
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {listen}{how}{backlog};
        {tls}{quic}
        location / {{
            {pass}
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_origin_connections_and_writes_no_log() {
        let text = super::configuration(&super::super::test_site());
        for line in [
            "worker_processes 1;",
            "listen 127.0.0.1:8001 backlog=4096;",
            "server 127.0.0.1:9001;",
            "keepalive 4096;",
            "proxy_http_version 1.1;",
            "proxy_set_header Connection \"\";",
            "access_log off;",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("ssl"));
        let identity = crate::tls::Identity::at("/tmp/tls".as_ref());
        let secure = super::configuration(&super::super::test_site_with_tls(&identity));
        assert!(secure.contains("listen 127.0.0.1:8001 ssl http2 backlog=4096;"), "{secure}");
        assert!(secure.contains("ssl_certificate /tmp/tls/cert.pem;"), "{secure}");
        let quic = super::configuration(&super::super::test_site_with_h3(&identity));
        assert!(
            quic.contains("listen 127.0.0.1:8001 quic;") && quic.contains("ssl_protocols TLSv1.3; quic_gso on;"),
            "{quic}"
        );
        let calls = super::configuration(&super::super::test_site_with_grpc());
        assert!(calls.contains("listen 127.0.0.1:8001 http2 backlog=4096;"), "{calls}");
        assert!(calls.contains("grpc_pass grpc://origin;") && !calls.contains("proxy_pass"), "{calls}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
