//! `penstock cert check`: what a file or a server shows, whether clients will take it, and what is to be mended.

mod report;

use super::{FAILED, USAGE, client, literal, refuse, say};
use crate::limits;
use crate::snapshot::{Address, Host, Trust};
use crate::tls::{self, Roots, Shown};
use certs::{Certificate, Judgement, Logs, Promises, Time, flaws};
use clap::{Args, Subcommand};
use report::Report;
use rustls::pki_types::ServerName;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A list of logs that is older says nothing of the logs of today: Chrome stops asking for SCTs after 70 days without a new one.
const LIST_DAYS_MAX: i64 = 70;

#[derive(Debug, Args)]
pub(super) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Explains the certificates of a file or of a server: names, days left, order of the chain, keys, SCTs
    #[command(after_help = "Exit codes: 0 nothing to mend, 1 something to mend or no answer, 2 usage.")]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A file of PEM or DER; or a server, which is asked on port 443 unless it says otherwise
    #[arg(value_name = "FILE|HOST[:PORT]")]
    target: String,
    /// The name to ask a server for, and to check; of a server its own, of a file none unless given
    #[arg(long, value_name = "NAME")]
    servername: Option<String>,
    /// Whose word is taken: `system`, or a file of PEM
    #[arg(long, value_name = "FILE", default_value = "system")]
    ca: String,
    /// The Certificate Transparency logs that are believed (log_list.json, version 3): SCTs are verified, and must be enough
    #[arg(long, value_name = "FILE")]
    logs: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub(super) fn cert(args: &CertArgs) -> ExitCode {
    let CertCommand::Check(args) = &args.command;
    match check(args) {
        Err((code, why)) => refuse(code, &why),
        Ok(report) => {
            let said = say(&if args.json { format!("{:#}\n", report.to_json()) } else { report.render() });
            if report.is_good() { said } else { ExitCode::from(FAILED) }
        }
    }
}

/// The exit code, and what to say.
type Refusal = (u8, String);

fn check(args: &CheckArgs) -> Result<Report, Refusal> {
    let failed = |why: String| (FAILED, why);
    let now = ring::wall_clock();
    let trust = if args.ca == "system" { Trust::System } else { Trust::File(PathBuf::from(&args.ca)) };
    let roots = Roots::of(&trust).map_err(|wrong| failed(wrong.to_string()))?.unwrap_or_default();
    let logs = args.logs.as_deref().map(read_logs).transpose().map_err(failed)?;
    let given = args.servername.as_deref().map(server_name).transpose()?;
    let is_file = args.target.contains('/') || Path::new(&args.target).is_file();
    let mut report = if is_file {
        let chain = read_file(Path::new(&args.target)).map_err(failed)?;
        let der: Vec<_> = chain.iter().map(Certificate::der).collect();
        let asked = given.map(|name| tls::trusted(&der, &name, &roots, now));
        Report { trust: asked.map(|trust| trust.map_err(|failure| failure.to_string())), chain, ..Report::default() }
    } else {
        let (host, port) = host(&args.target).map_err(|why| (USAGE, why))?;
        let name = given.map_or_else(|| server_name(host.to_string().trim_matches(['[', ']'])), Ok)?;
        let shown = ask(&host, port, name, &roots).map_err(|why| failed(format!("{}: {why}", args.target)))?;
        of_server(shown).map_err(failed)?
    };
    report.source.clone_from(&args.target);
    report.now = Time::from_unix(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    judge(&mut report, &roots, logs.as_ref());
    Ok(report)
}

/// What is wrong with the chain, and with what logs have promised for it.
fn judge(report: &mut Report, roots: &Roots, logs: Option<&Logs>) {
    let is_root = |name: &[u8]| roots.key_of(name).is_some();
    report.flaws = flaws(&report.chain, report.now, Some(&is_root)).iter().map(ToString::to_string).collect();
    if let Some(Err(why)) = &report.trust {
        report.flaws.push(format!("clients refuse it: {why}"));
    }
    let Some(logs) = logs else { return };
    let Some(judgement) = judge_scts(report, roots, logs) else { return };
    let days = logs.published.map_or(0, |published| published.days_until(report.now));
    if days > LIST_DAYS_MAX {
        report.notes.push(format!("the list of logs is {days} days old: get a new one"));
    }
    report.flaws.extend(judgement.shortfall().map(|shortfall| shortfall.to_string()));
    report.judgement = Some(judgement);
}

fn judge_scts(report: &Report, roots: &Roots, logs: &Logs) -> Option<Judgement> {
    let certificate = report.chain.iter().find(|one| !one.is_ca).or(report.chain.first())?;
    let issuer = report.chain.iter().find(|one| certificate.is_issued_by(one)).map(|one| one.spki().to_vec());
    let issuer = issuer.or_else(|| roots.key_of(certificate.issuer_der()));
    let promises = Promises {
        certificate,
        issuer_spki: issuer.as_deref(),
        tls_extension: &[],
        ocsp: report.ocsp.as_deref().unwrap_or_default(),
    };
    Some(certs::judge(logs, &promises, report.now))
}

/// Shakes hands with a server.
fn ask(host: &Host, port: u16, name: ServerName<'static>, roots: &Roots) -> std::io::Result<Shown> {
    tls::inspect(&mut client::connect(host, port)?, name, roots)
}

fn of_server(shown: Shown) -> Result<Report, String> {
    let chain: Result<Vec<_>, _> = shown.chain.iter().map(|der| Certificate::read(der)).collect();
    Ok(Report {
        chain: chain.map_err(|wrong| wrong.to_string())?,
        agreed: Some((shown.version, shown.cipher, shown.protocol)),
        ocsp: Some(shown.ocsp),
        trust: Some(shown.trust.map_err(|failure| failure.to_string())),
        ..Report::default()
    })
}

/// `HOST` or `HOST:PORT`, with `https://` in front or without.
fn host(target: &str) -> Result<(Host, u16), String> {
    let bare = target.strip_prefix("https://").unwrap_or(target).trim_end_matches('/');
    match literal::<Address>(bare).or_else(|why| literal(&format!("{bare}:443")).map_err(|_| why)) {
        Ok(Address::Tcp { host, port }) => Ok((host, port)),
        Ok(Address::Unix(_)) => Err(format!("`{target}` is no host")),
        Err(why) => Err(format!("`{target}` is neither a file nor a server: {why}")),
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, Refusal> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| (USAGE, format!("`{name}` is no name that a certificate could have")))
}

fn read_file(path: &Path) -> Result<Vec<Certificate>, String> {
    let content = read(path, limits::TLS_FILE_BYTES_MAX)?;
    certs::read_chain(&content).map_err(|wrong| format!("{}: {wrong}", path.display()))
}

fn read_logs(path: &Path) -> Result<Logs, String> {
    let content = read(path, limits::LOG_LIST_BYTES_MAX)?;
    Logs::read(&content).map_err(|wrong| format!("{}: {wrong}", path.display()))
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut content));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    if content.len() as u64 > limit {
        return Err(format!("{}: is larger than {} MiB", path.display(), limit >> 20));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_as_people_write_them() {
        for (text, wanted) in [
            ("example.net", Some(("example.net", 443))),
            ("example.net:8443", Some(("example.net", 8443))),
            ("https://example.net/", Some(("example.net", 443))),
            ("192.0.2.7", Some(("192.0.2.7", 443))),
            ("[2001:db8::7]:8443", Some(("[2001:db8::7]", 8443))),
            ("[2001:db8::7]", Some(("[2001:db8::7]", 443))),
            ("unix:/run/x", None),
            ("no host", None),
            ("", None),
        ] {
            let read = host(text).ok().map(|(host, port)| (host.to_string(), port));
            assert_eq!(read, wanted.map(|(host, port)| (host.to_owned(), port)), "{text}");
        }
    }
}
