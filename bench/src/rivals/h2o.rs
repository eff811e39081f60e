//! h2o from Debian, one thread. Its connections to the origin are kept for as long as it is told.

use std::path::Path;

use xtask::Outcome;

use super::{CONNECTIONS_MAX, Launch, Site};
use crate::process::{words, write_file};

pub(super) fn launch(program: &Path, site: &Site<'_>) -> Outcome<Launch> {
    let file = site.folder.join("h2o.conf");
    write_file(&file, configuration(site))?;
    Ok(Launch::new(words([&program, &"-m", &"worker", &"-c", &file])))
}

fn configuration(site: &Site<'_>) -> String {
    let Site { listen, to, folder, .. } = site;
    let (host, port, root) = (listen.ip(), listen.port(), folder.display());
    let tls = site.identity.map_or_else(String::new, |identity| {
        let (cert, key) = (identity.cert.display(), identity.key.display());
        format!("  ssl:\n    certificate-file: {cert}\n    key-file: {key}\n    minimum-version: TLSv1.3\n")
    });
    format!(
        "\
user: root
num-threads: 1
max-connections: {CONNECTIONS_MAX}
temp-buffer-path: {root}
error-log: {root}/error.log
http1-request-timeout: 600
http2-idle-timeout: 600
listen:
  host: {host}
  port: {port}
{tls}hosts:
  default:
    paths:
      /:
        proxy.reverse.url: http://{to}/
        proxy.timeout.keepalive: 600000
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thread_that_keeps_connections() {
        let text = super::configuration(&super::super::test_site());
        for line in ["num-threads: 1\n", "  port: 8001\nhosts:", "proxy.reverse.url: http://127.0.0.1:9001/\n"] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("access-log"));
        let identity = crate::tls::Identity::at("/tmp/tls".as_ref());
        let secure = super::configuration(&super::super::test_site_with_tls(&identity));
        assert!(secure.contains("  ssl:\n    certificate-file: /tmp/tls/cert.pem\n"), "{secure}");
    }
}
