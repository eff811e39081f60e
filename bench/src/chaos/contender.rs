//! The proxies as set up against faults: Penstock as `serve` starts it, the rivals tuned by hand for exactly this bench.
//!
//! The rivals' configurations are here to be read and bettered: a comparison is worth what its weakest configuration is worth. Both know the
//! origins' latency (1–3 ms, at worst 30 ms), which no default could, and set their time-outs by it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use xtask::Outcome;

use crate::process::{Cpus, Running, Scratch, free_address, get, words, write_file};
use crate::rivals::{Kind, nginx};

/// A proxy that runs, or none at all: then clients go straight to the origins.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    /// What it was told, for whoever wants to judge the comparison.
    pub(crate) configuration: String,
    pub(crate) to: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    _running: Option<Running>,
}

/// How a proxy is told of its origins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behind<'a> {
    Addresses(&'a [SocketAddr]),
    /// [`NAME`] with this port, as this name server says.
    Name {
        server: SocketAddr,
        port: u16,
    },
}

const NAME: &str = "origins.test";

/// Where a proxy listens, where it sends, and on what.
struct Site<'a> {
    listen: SocketAddr,
    behind: Behind<'a>,
    cpus: &'a Cpus,
    folder: PathBuf,
    own: Option<&'a str>,
}

impl Contender {
    /// Starts one and waits until a request through it is answered. `own` is a configuration's text to use in place of Penstock's defaults,
    /// with places for `{listen}`, `{admin}`, `{origins}` and `{cores}`.
    pub(crate) fn start(
        kind: Kind,
        behind: Behind<'_>,
        cpus: &Cpus,
        scratch: &Scratch,
        own: Option<&str>,
    ) -> Outcome<Self> {
        if let (Kind::Direct, Behind::Addresses(origins)) = (kind, behind) {
            return Ok(Self {
                kind,
                version: "clients straight to the origins, without a second try".to_owned(),
                configuration: String::new(),
                to: origins.to_vec(),
                admin: None,
                _running: None,
            });
        }
        let program = kind.program()?;
        let site = Site { listen: free_address()?, behind, cpus, folder: scratch.folder(kind.name())?, own };
        let admin = (kind == Kind::Penstock).then(free_address).transpose()?;
        let (line, configuration) = match kind {
            Kind::Nginx => {
                let (file, text) = (site.folder.join("nginx.conf"), nginx(&site));
                write_file(&file, &text)?;
                (words([&program, &"-p", &site.folder, &"-c", &file]), text)
            }
            Kind::Haproxy => {
                let (file, text) = (site.folder.join("haproxy.cfg"), haproxy(&site));
                write_file(&file, &text)?;
                (words([&program, &"-db", &"-q", &"-f", &file]), text)
            }
            Kind::Penstock => penstock(&program, &site, admin)?,
            other => return Err(format!("{} has no configuration for this", other.name())),
        };
        let mut running = Running::start(kind.name(), cpus.clone(), &line, &[], &site.folder.join("log"))?;
        running.wait_until_it_answers(site.listen, "/health")?;
        let version = kind.version(&program);
        Ok(Self { kind, version, configuration, to: vec![site.listen], admin, _running: Some(running) })
    }

    /// Penstock's counters that are not nothing, to tell why clients saw what they saw.
    pub(crate) fn counters(&self) -> Vec<String> {
        let text = self.admin.and_then(|admin| get(admin, "/metrics").ok()).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("penstock_") && !line.contains("_bucket") && !line.ends_with(" 0"))
            .map(str::to_owned)
            .collect()
    }
}

impl Site<'_> {
    /// None where a name stands for them.
    fn addresses(&self) -> &[SocketAddr] {
        match self.behind {
            Behind::Addresses(origins) => origins,
            Behind::Name { .. } => &[],
        }
    }
}

/// Penstock before a name; its name server cannot be told by a flag.
const PENSTOCK_NAMED: &str = r#"
[engine]
cores = "{cores}"
admin = "{admin}"
resolver = "{name-server}"

[[listen]]
name = "door"
addr = "{listen}"

[[pool]]
name = "origins"
endpoints = [{origins}]
resolve_every = "1s"
"#;

/// `serve` with nothing but what it needs to know, or a file's text with its places filled in.
fn penstock(program: &Path, site: &Site<'_>, admin: Option<SocketAddr>) -> Outcome<(Vec<std::ffi::OsString>, String)> {
    let (listen, cores) = (site.listen.to_string(), site.cpus.to_string());
    let admin = admin.map_or_else(String::new, |admin| admin.to_string());
    let own = site.own.or(matches!(site.behind, Behind::Name { .. }).then_some(PENSTOCK_NAMED));
    if let Some(own) = own {
        let (origins, server) = match site.behind {
            Behind::Addresses(origins) => (origins.iter().map(SocketAddr::to_string).collect(), String::new()),
            Behind::Name { server, port } => (vec![format!("{NAME}:{port}")], server.to_string()),
        };
        let origins: Vec<String> = origins.iter().map(|origin| format!("\"{origin}\"")).collect();
        let text = own
            .replace("{name-server}", &server)
            .replace("{listen}", &listen)
            .replace("{admin}", &admin)
            .replace("{origins}", &origins.join(", "))
            .replace("{cores}", &cores);
        let file = site.folder.join("penstock.toml");
        write_file(&file, &text)?;
        return Ok((words([&program, &"run", &"-c", &file]), text));
    }
    let mut line = words([&program, &"serve", &"--listen", &listen, &"--cores", &cores, &"--admin", &admin]);
    for origin in site.addresses() {
        line.extend(words([&"--to", &origin.to_string()]));
    }
    let text: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    Ok((line, text.join(" ") + "\n"))
}

/// nginx: whatever may be asked twice is asked again elsewhere, after half a second at the latest.
///
/// * `least_conn`: an origin that hangs gathers connections, and so gets no more of them.
/// * `max_fails=0`: no origin is ever out. With 1 or 5 fails in a second, the least it counts in, single faults cost fewer second tries and
///   fewer POSTs; but when all origins have faults, nginx finds "no live upstreams" and answers 502 by itself to thousands.
/// * POSTs are not repeated (`non_idempotent` is left out): a second execution is worse than an error.
fn nginx(site: &Site<'_>) -> String {
    let (listen, root, workers) = (site.listen, site.folder.display(), site.cpus.count());
    let servers: String =
        site.addresses().iter().map(|origin| format!("        server {origin} max_fails=0;\n")).collect();
    let preamble = nginx::preamble(&root, workers, 16_384, 4_096);
    format!(
        "\
{preamble}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    upstream origins {{
        zone origins 256k;
        least_conn;
{servers}        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://origins;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_connect_timeout 200ms;
            proxy_send_timeout 500ms;
            proxy_read_timeout 500ms;
            proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
            proxy_next_upstream_tries 5;
            proxy_next_upstream_timeout 5s;
        }}
    }}
}}
"
    )
}

/// HAProxy: five tries with redispatch each time, checks every 200 ms, and every real answer observed as a check.
///
/// * `retry-on all-retryable-errors` covers connections, empty and junk answers, time-outs and 500, 502, 503, 504; not for POSTs, whose second
///   execution would be worse than an error.
/// * `observe layer7 on-error mark-down` with `fastinter`: three bad answers take an origin out until its checks pass again.
fn haproxy(site: &Site<'_>) -> String {
    let (listen, threads) = (site.listen, site.cpus.count());
    let (resolvers, servers) = match site.behind {
        Behind::Addresses(origins) => {
            let servers = origins.iter().enumerate();
            (String::new(), servers.map(|(number, origin)| format!("    server origin{number} {origin}\n")).collect())
        }
        Behind::Name { server, port } => (
            format!(
                "
resolvers names
    nameserver here {server}
    timeout resolve 300ms
    timeout retry 300ms
    hold valid 300ms
    hold obsolete 0s
"
            ),
            format!("    server-template origin 5 {NAME}:{port} resolvers names resolve-prefer ipv4 init-addr none\n"),
        ),
    };
    format!(
        "\
global
    nbthread {threads}
    maxconn 4096

defaults
    mode http
    option redispatch 1
    retries 5
    retry-on all-retryable-errors
    timeout connect 200ms
    timeout server 500ms
    timeout check 300ms
    timeout queue 1s
    timeout client 600s
    timeout http-keep-alive 600s
{resolvers}
frontend door
    bind {listen} backlog 4096
    default_backend origins

backend origins
    balance leastconn
    http-reuse safe
    http-request disable-l7-retry if METH_POST
    option httpchk GET /health
    default-server check inter 200ms fastinter 50ms downinter 200ms rise 2 fall 2 observe layer7 error-limit 3 on-error mark-down
{servers}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_site<T>(behind: Behind<'_>, make: impl Fn(&Site<'_>) -> T) -> T {
        let (cpus, folder) = (Cpus::from(1), PathBuf::from("/tmp/c"));
        make(&Site { listen: "127.0.0.1:8001".parse().unwrap(), behind, cpus: &cpus, folder, own: None })
    }

    fn two() -> [SocketAddr; 2] {
        ["127.0.0.11:9000", "127.0.0.12:9000"].map(|address| address.parse().unwrap())
    }

    #[test]
    fn rivals_try_again_but_no_post() {
        let nginx = with_site(Behind::Addresses(&two()), nginx);
        assert!(nginx.contains("server 127.0.0.12:9000 max_fails=0") && !nginx.contains("non_idempotent"));
        assert_eq!(nginx.matches('{').count(), nginx.matches('}').count());
        let haproxy = with_site(Behind::Addresses(&two()), haproxy);
        assert!(haproxy.contains("server origin1 127.0.0.12:9000\n") && !haproxy.contains("resolvers"));
        assert!(haproxy.contains("disable-l7-retry if METH_POST") && haproxy.contains("option redispatch 1\n"));
    }

    #[test]
    fn a_name_comes_with_who_knows_it() {
        let behind = Behind::Name { server: "127.0.0.1:53".parse().unwrap(), port: 9000 };
        let haproxy = with_site(behind, haproxy);
        assert!(haproxy.contains("nameserver here 127.0.0.1:53\n") && haproxy.contains(" 5 origins.test:9000 "));
    }

    #[test]
    fn penstock_gets_no_more_than_it_must() {
        let admin = Some("127.0.0.1:1".parse().unwrap());
        let (_, line) =
            with_site(Behind::Addresses(&two()[..1]), |site| penstock(Path::new("/p"), site, admin)).unwrap();
        assert_eq!(line, "/p serve --listen 127.0.0.1:8001 --cores 1 --admin 127.0.0.1:1 --to 127.0.0.11:9000\n");
    }
}
