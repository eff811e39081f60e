//! `penstock serve`: flags that stand for a configuration file.

use super::{admin_address, literal};
use crate::snapshot::{
    AccessFormat, Address, Bind, Cores, Document, Driver, Listed, ListenDoc, PoolDoc, PoolProtocol, Protocol, SameHost,
    Text, Unreadable,
};
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where to listen: 127.0.0.1:8080, :8080, http://…, https://…, tcp://…, udp://…, unix:PATH, tcp+unix:PATH. Several may be
    /// given
    #[arg(long, value_name = "ADDR", required = true, value_parser = door)]
    pub listen: Vec<Door>,
    /// Where to go: 127.0.0.1:9000, host:80, http://…, https://…, h2://… (HTTP/2 over TLS), h2c://… (without), h3://… (HTTP/3),
    /// tcp://…, udp://…, unix:PATH, tcp+unix:PATH. Several may be given
    #[arg(long, value_name = "TARGET", required = true, value_parser = target)]
    pub to: Vec<Target>,
    /// The certificate of https:// doors with its chain behind it, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<String>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<String>,
    /// The CPUs to work on, one worker each: 0-3, or 0,2. All we may use unless given
    #[arg(long, value_name = "LIST", value_parser = literal::<Cores>, default_value = "auto")]
    pub cores: Cores,
    /// How to talk to the kernel
    #[arg(long, default_value = "auto", value_parser = driver())]
    pub driver: Driver,
    /// Skip TCP to targets of HTTP/1.1 on this host, where the kernel lets us
    #[arg(long)]
    pub same_host: bool,
    /// Where to serve /metrics and /status. Nowhere unless given
    #[arg(long, value_name = "ADDR", value_parser = admin_address)]
    pub admin: Vec<Address>,
    /// The access log's file; - is standard output. Off unless given
    #[arg(long, value_name = "PATH")]
    pub access_log: Option<String>,
    /// The access log's form
    #[arg(long, default_value = "json", value_parser = access_format(), requires = "access_log")]
    pub log_format: AccessFormat,
}

/// A `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    protocol: Protocol,
    tls: bool,
    bind: Bind,
}

/// A `--to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    protocol: Protocol,
    speaks: PoolProtocol,
    endpoint: Text<crate::snapshot::Endpoint>,
}

/// The document that the flags stand for.
///
/// # Errors
/// A sentence, when doors and targets do not fit together.
pub fn document(args: &ServeArgs) -> Result<Document, String> {
    let mut document = Document::default();
    for protocol in [Protocol::Http, Protocol::Tcp, Protocol::Udp] {
        let name = protocol.text();
        let doors: Vec<_> = args.listen.iter().filter(|door| door.protocol == protocol).collect();
        let targets: Vec<_> =
            args.to.iter().filter(|target| target.protocol == protocol).map(|target| target.endpoint.clone()).collect();
        match (doors.first(), targets.first()) {
            (None, None) => continue,
            (Some(door), None) => {
                return Err(no_partner("--listen", &shown(protocol, &door.bind), name, "--to"));
            }
            (None, Some(target)) => {
                return Err(no_partner("--to", &shown(protocol, &target.0), name, "--listen"));
            }
            (Some(_), Some(_)) => {}
        }
        for tls in [false, true] {
            let binds: Vec<_> = doors.iter().filter(|door| door.tls == tls).map(|door| door.bind.clone()).collect();
            if !binds.is_empty() {
                document.listen.push(listener(args, protocol, tls, binds)?);
            }
        }
        document.pool.push(PoolDoc {
            name: name.into(),
            endpoints: targets,
            protocol: spoken(args)?,
            same_host: if args.same_host && protocol == Protocol::Http { near(args)? } else { SameHost::Off },
            ..PoolDoc::default()
        });
    }
    if args.same_host && args.to.iter().all(|target| target.protocol != Protocol::Http) {
        return Err("`--same-host` is for HTTP, and no target speaks it: leave it out".to_owned());
    }
    document.engine.cores = Text(args.cores.clone());
    document.engine.driver = args.driver;
    document.engine.admin = Listed(args.admin.clone());
    if let Some(path) = &args.access_log {
        document.log.access.path.clone_from(path);
        document.log.access.format = args.log_format;
    }
    Ok(document)
}

/// What the targets speak.
fn spoken(args: &ServeArgs) -> Result<PoolProtocol, String> {
    let mut targets = args.to.iter().filter(|target| target.protocol == Protocol::Http);
    let speaks = targets.next().map_or(PoolProtocol::Http11, |target| target.speaks);
    match targets.find(|target| target.speaks != speaks) {
        Some(other) => Err(format!(
            "`--to {}` does not speak what the target before it does: give all the same scheme",
            other.endpoint.0
        )),
        None => Ok(speaks),
    }
}

/// What `--same-host` means for the targets that are given with it.
fn near(args: &ServeArgs) -> Result<SameHost, String> {
    let far = |target: &&Target| target.speaks != PoolProtocol::Http11 || target.endpoint.0.tls;
    match args.to.iter().find(|target| target.protocol == Protocol::Http && far(target)) {
        None => Ok(SameHost::Auto),
        Some(target) => Err(format!(
            "`--same-host` is for HTTP/1.1 in the clear, and `--to {}` speaks something else: leave it out",
            target.endpoint.0
        )),
    }
}

fn listener(args: &ServeArgs, protocol: Protocol, tls: bool, binds: Vec<Bind>) -> Result<ListenDoc, String> {
    let (name, pool) = match (protocol, tls) {
        (Protocol::Http, false) => ("http", None),
        (Protocol::Http, true) => ("https", None),
        (Protocol::Tcp | Protocol::Udp, _) => (protocol.text(), Some(protocol.text().into())),
    };
    let mut listener = ListenDoc { name: name.into(), addr: Listed(binds), protocol, pool, ..ListenDoc::default() };
    if tls {
        if args.cert.is_none() {
            return Err("an https:// door needs a certificate: add `--cert FILE --key FILE`. `penstock demo` makes one for itself that nobody has signed; \
                 for a door of your own, do so with `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
                 -subj /CN=localhost -addext subjectAltName=DNS:localhost`"
                .into());
        }
        listener.tls.cert.clone_from(&args.cert);
        listener.tls.key.clone_from(&args.key);
    }
    Ok(listener)
}

fn shown(protocol: Protocol, address: &impl ToString) -> String {
    let address = address.to_string();
    match (protocol, address.starts_with("unix:")) {
        (Protocol::Http, _) => address,
        (Protocol::Tcp, true) => format!("tcp+{address}"),
        (Protocol::Tcp | Protocol::Udp, _) => format!("{}://{address}", protocol.text()),
    }
}

fn no_partner(flag: &str, value: &str, protocol: &str, other: &str) -> String {
    let example = match (protocol, other) {
        ("tcp", "--to") => "--to tcp://HOST:PORT",
        ("tcp", _) => "--listen tcp://:PORT",
        ("udp", "--to") => "--to udp://HOST:PORT",
        ("udp", _) => "--listen udp://:PORT",
        (_, "--to") => "--to HOST:PORT",
        _ => "--listen :PORT",
    };
    format!("`{flag} {value}` speaks {protocol}, and no {other} does: add `{example}`")
}

/// What stands before an address.
#[derive(Clone, Copy)]
struct Scheme {
    protocol: Protocol,
    tls: bool,
    speaks: PoolProtocol,
    /// The port that a URL without one means.
    port: Option<u16>,
}

/// What stands before the address, and the address without it.
fn scheme(text: &str) -> Result<(Scheme, String), Unreadable> {
    let plain = |protocol| Scheme { protocol, tls: false, speaks: PoolProtocol::Http11, port: None };
    if let Some(path) = text.strip_prefix("tcp+unix:") {
        return Ok((plain(Protocol::Tcp), format!("unix:{path}")));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((plain(Protocol::Http), text.to_owned()));
    };
    let tls = matches!(scheme, "https" | "h2" | "h3");
    let speaks = match scheme {
        "h2" | "h2c" => PoolProtocol::Http2,
        "h3" => PoolProtocol::Http3,
        _ => PoolProtocol::Http11,
    };
    match scheme {
        "http" | "https" | "h2" | "h2c" | "h3" => match rest.trim_end_matches('/') {
            bare if bare.contains('/') => {
                Err(wrong("has a path", format!("write `{scheme}://{}`", bare.split('/').next().unwrap_or_default())))
            }
            bare => {
                let port = Some(if tls { 443 } else { 80 });
                Ok((Scheme { protocol: Protocol::Http, tls, speaks, port }, bare.to_owned()))
            }
        },
        "tcp" => Ok((plain(Protocol::Tcp), rest.to_owned())),
        "udp" => Ok((plain(Protocol::Udp), rest.to_owned())),
        _ => Err(wrong(
            format!("has the unknown scheme `{scheme}`"),
            "write `http://`, `https://`, `tcp://` or `udp://`",
        )),
    }
}

fn wrong(why: impl Into<String>, instead: impl Into<String>) -> Unreadable {
    Unreadable { why: why.into(), instead: instead.into() }
}

fn door(text: &str) -> Result<Door, String> {
    let read = || {
        let (Scheme { protocol, tls, speaks, .. }, address) = scheme(text)?;
        match speaks {
            PoolProtocol::Http2 => {
                return Err(wrong("names HTTP/2, which every http door speaks", "write `http://` or `https://`"));
            }
            PoolProtocol::Http3 => {
                return Err(wrong("names HTTP/3, which every https door speaks", "write `https://`"));
            }
            PoolProtocol::Http11 | PoolProtocol::Auto => {}
        }
        Ok(Door { protocol, tls, bind: address.parse()? })
    };
    read().map_err(|wrong: Unreadable| format!("it {wrong}"))
}

fn target(text: &str) -> Result<Target, String> {
    let read = || {
        let (Scheme { protocol, tls, speaks, port }, mut address) = scheme(text)?;
        // A URL has a default port; a bare address does not.
        let port_is_missing = address.ends_with(']') || !address.contains(':');
        if let Some(port) = port.filter(|_| port_is_missing && !address.is_empty()) {
            address.push_str(&format!(":{port}"));
        }
        let scheme = if tls { "https://" } else { "" };
        Ok(Target { protocol, speaks, endpoint: Text(format!("{scheme}{address}").parse()?) })
    };
    read().map_err(|wrong: Unreadable| format!("it {wrong}"))
}

fn driver() -> impl TypedValueParser<Value = Driver> {
    PossibleValuesParser::new(["auto", "uring", "epoll"]).map(|text| match text.as_str() {
        "uring" => Driver::Uring,
        "epoll" => Driver::Epoll,
        _ => Driver::Auto,
    })
}

fn access_format() -> impl TypedValueParser<Value = AccessFormat> {
    PossibleValuesParser::new(["json", "common"]).map(|text| match text.as_str() {
        "common" => AccessFormat::Common,
        _ => AccessFormat::Json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn toml(flags: &str) -> String {
        let flags = Flags::try_parse_from(std::iter::once("serve").chain(flags.split_whitespace()));
        match flags.map(|flags| document(&flags.args)) {
            Err(error) => error.to_string(),
            Ok(Err(wrong)) => format!("error: {wrong}"),
            Ok(Ok(document)) => {
                let toml = snapshot::print(&document);
                let read =
                    snapshot::read_with("flags", &toml, &|_| Ok(Vec::new())).map_err(|report| report.render()).unwrap();
                assert_eq!(read.document, document, "the printed file is the same configuration");
                toml
            }
        }
    }

    #[test]
    fn flags_stand_for_a_file() {
        let found = toml("--listen 127.0.0.1:8080 --to 127.0.0.1:9000 --to 127.0.0.1:9001 --cores 1");
        let wanted = r#"[engine]
cores = "1"

[[listen]]
name = "http"
addr = "127.0.0.1:8080"

[[pool]]
name = "http"
endpoints = ["127.0.0.1:9000", "127.0.0.1:9001"]
"#;
        assert_eq!(found, wanted);
    }

    #[test]
    fn every_flag_and_form() {
        let found = toml(
            "--listen :80 --listen http://127.0.0.1:81 --listen unix:/run/a --listen tcp://:5432 --listen tcp+unix:/run/b \
             --to http://app.internal --to tcp://db:5432 --to tcp+unix:/run/db --to unix:/run/app --to http://[::1] \
             --cores 0,2 --driver epoll --admin 127.0.0.1:9180 --admin unix:/run/c --access-log - --log-format common",
        );
        let wanted = r#"[engine]
cores = "0,2"
driver = "epoll"
admin = ["127.0.0.1:9180", "unix:/run/c"]

[log]
access = { path = "-", format = "common" }

[[listen]]
name = "http"
addr = [":80", "127.0.0.1:81", "unix:/run/a"]

[[listen]]
name = "tcp"
addr = [":5432", "unix:/run/b"]
protocol = "tcp"
pool = "tcp"

[[pool]]
name = "http"
endpoints = ["app.internal:80", "unix:/run/app", "[::1]:80"]

[[pool]]
name = "tcp"
endpoints = ["db:5432", "unix:/run/db"]
"#;
        assert_eq!(found, wanted);
    }

    #[test]
    fn doors_with_tls_are_listeners_of_their_own() {
        let found = toml("--listen :80 --listen https://:443 --to a:1 --cert c.pem --key k.pem");
        let wanted = r#"[[listen]]
name = "http"
addr = ":80"

[[listen]]
name = "https"
addr = ":443"
tls = { cert = "c.pem", key = "k.pem" }
"#;
        assert!(found.contains(wanted), "{found}");
    }

    #[test]
    fn the_shortcut_is_for_the_pool_of_http() {
        let found = toml("--listen :80 --listen tcp://:1 --to a:1 --to tcp://b:1 --same-host");
        assert!(found.contains("endpoints = [\"a:1\"]\nsame_host = \"auto\"\n"), "{found}");
        assert_eq!(found.matches("same_host").count(), 1, "{found}");
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let table = [
            ("--listen :1 --to https://a --same-host", "`--same-host` is for HTTP/1.1 in the clear"),
            ("--listen :1 --to h2c://a:1 --same-host", "`--same-host` is for HTTP/1.1 in the clear"),
            ("--listen udp://:1 --to udp://a:1 --same-host", "no target speaks it: leave it out"),
            ("--listen tcp://:1 --to a:1", "`--to a:1` speaks http, and no --listen does: add `--listen :PORT`"),
            ("--listen :1 --to tcp://a:1", "`--listen :1` speaks http, and no --to does: add `--to HOST:PORT`"),
            (
                "--listen :1 --to a:1 --to tcp://b:1",
                "`--to tcp://b:1` speaks tcp, and no --listen does: add `--listen tcp://:PORT`",
            ),
            ("--listen :1 --to a", "it has no port: write `a:80`"),
            ("--listen :1 --to http://a/b", "it has a path: write `http://a`"),
            ("--listen https://:1 --to a:1", "needs a certificate: add `--cert FILE --key FILE`"),
            ("--listen ftp://:1 --to a:1", "unknown scheme `ftp`"),
            ("--listen :1 --to a:1 --cores 3-1", "write `1-3`"),
            ("--listen :1", "--to"),
        ];
        for (flags, wanted) in table {
            assert!(toml(flags).contains(wanted), "{flags}: {}", toml(flags));
        }
    }
}
