//! `penstock check`: what is wrong with a configuration, or what it means.

use super::{CONFIG_INVALID, ConfigArgs, FAILED, Format, Refusal, read_config, refuse, say, usable_cores};
use crate::quic::Keys;
use crate::snapshot::{self, Compiled, Question};
use crate::tls::{self, Originations, Terminators, Wrong};
use clap::Args;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Says which listener, route, pool and limits a request would meet
    #[arg(long, value_name = "URL")]
    explain: Option<String>,
    /// The method of the request to explain
    #[arg(long, value_name = "METHOD", default_value = "GET", requires = "explain")]
    method: String,
    /// A field of the request to explain; as often as needed
    #[arg(long, value_name = "NAME: VALUE", requires = "explain")]
    header: Vec<String>,
    /// The address that the request to explain comes from
    #[arg(long, value_name = "IP", requires = "explain")]
    client: Option<std::net::IpAddr>,
    /// Prints the configuration with every default filled in
    #[arg(long)]
    defaults: bool,
    /// For people, or for programs
    #[arg(long, default_value = "text")]
    format: Format,
}

pub(super) fn check(args: &CheckArgs) -> ExitCode {
    match read_config(&args.config.config).and_then(|compiled| {
        let unusable = |wrong: Wrong| Refusal::File(wrong.to_string());
        Terminators::load(&compiled.snapshot).map_err(unusable)?;
        Originations::load(&compiled.snapshot).map_err(unusable)?;
        Keys::new(&compiled.snapshot.engine.quic).map_err(|error| Refusal::File(error.to_string()))?;
        Ok(compiled)
    }) {
        Ok(compiled) => answer(args, &compiled),
        Err(refusal) if args.format == Format::Text => refusal.say(),
        Err(refusal) => {
            let problems = match refusal {
                Refusal::File(wrong) => {
                    json!([{ "code": snapshot::Code::Unreadable.number(), "severity": "error", "message": wrong }])
                }
                Refusal::Report(report) => report.to_json(),
            };
            say(&format!("{:#}\n", json!({ "valid": false, "problems": problems })));
            ExitCode::from(CONFIG_INVALID)
        }
    }
}

fn answer(args: &CheckArgs, compiled: &Compiled) -> ExitCode {
    let explanation = match &args.explain {
        None => None,
        Some(url) => {
            let question = Question {
                method: args.method.clone(),
                url: url.clone(),
                headers: args.header.clone(),
                client: args.client,
            };
            match snapshot::explain(&compiled.snapshot, &question) {
                Ok(explanation) => Some(explanation),
                Err(wrong) => return refuse(FAILED, &wrong),
            }
        }
    };
    // A CPU that this host lacks is no fault of the file, which may be meant for another host.
    let elsewhere = usable_cores(&compiled.snapshot.engine.cores).err();
    if args.format == Format::Json {
        let mut answer = Map::new();
        answer.insert("valid".into(), true.into());
        answer.insert("problems".into(), compiled.report.to_json());
        let notes = tls::unpublished(&compiled.snapshot);
        if !notes.is_empty() {
            answer.insert("notes".into(), notes.into());
        }
        let records = tls::https_records(&compiled.snapshot);
        if !records.is_empty() {
            answer.insert("dns".into(), records.into());
        }
        answer.extend(elsewhere.map(|wrong| ("host".into(), Value::from(wrong))));
        answer.extend(explanation.map(|explanation| ("explain".into(), explanation.to_json())));
        if args.defaults {
            answer.insert("document".into(), json!(compiled.document));
        }
        return say(&format!("{:#}\n", Value::from(answer)));
    }
    eprint!("{}", compiled.report.render());
    for note in tls::unpublished(&compiled.snapshot) {
        eprintln!("note: {note}");
    }
    if let Some(wrong) = elsewhere {
        eprintln!("note: on this host it would not start: {wrong}");
    }
    let mut out = String::new();
    if args.defaults {
        out.push_str(&snapshot::complete(&compiled.document));
    }
    if let Some(explanation) = &explanation {
        if args.defaults {
            out.push('\n');
        }
        out.push_str(&explanation.render());
    }
    if out.is_empty() {
        let snapshot = &compiled.snapshot;
        let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        out = format!(
            "{}: good ({}, {}, {})\n",
            compiled.report.origin,
            count(snapshot.listeners.len(), "listener"),
            count(snapshot.routes.len(), "route"),
            count(snapshot.pools.len(), "pool"),
        );
        let records = tls::https_records(snapshot);
        if !records.is_empty() {
            out.push_str("in the DNS, clients would find what is spoken here before they connect (RFC 9460):\n");
        }
        records.iter().for_each(|record| out.extend(["  ", record, "\n"]));
    }
    say(&out)
}
