//! The command line: what `penstock` can be told, and what it answers with.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 configuration invalid, 4 host unfit.

mod cert;
mod check;
mod client;
mod doctor;
mod reload;
mod serve;
mod set;
mod show;
mod status;
mod table;
mod tap;

use crate::{
    cores,
    demo::{self, Demo},
    engine::Reread,
    snapshot::{self, Address, Compiled, Cores, Literal, Time},
    start::{self, Source},
};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
};

pub use serve::{ServeArgs, document};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CONFIG_INVALID: u8 = 3;
const HOST_UNFIT: u8 = 4;

const CONFIG_DEFAULT: &str = "/etc/penstock/penstock.toml";
const ADMIN_DEFAULT: &str = "127.0.0.1:9180";

/// An edge proxy and load balancer: one worker a core, one io_uring a worker.
#[derive(Debug, Parser)]
#[command(
    name = "penstock",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration invalid, 4 host unfit."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the engine at work: embedded origins, a bounded load, a live table
    Demo(DemoArgs),
    /// Serves without a file, and prints the configuration that the flags stand for
    Serve(ServeArgs),
    /// Serves what a configuration file says, in the foreground
    Run(ConfigArgs),
    /// Checks a configuration file: everything that is wrong with it, at once
    Check(check::CheckArgs),
    /// Explains certificates
    Cert(cert::CertArgs),
    /// Shows what a running engine is doing, on one screen
    Status(status::StatusArgs),
    /// Shows endpoints, pools, breakers, routes, limits, WebSockets or gRPC of a running engine
    Show(show::ShowArgs),
    /// Has a running engine read its configuration file anew and go on by it
    Reload(reload::ReloadArgs),
    /// Drains, weighs or forces an endpoint of a running engine
    Set(set::SetArgs),
    /// Prints live what a running engine drops: samples of packets
    Tap(tap::TapArgs),
    /// Says what this host grants, what that means, and how to get more
    Doctor(doctor::DoctorArgs),
    /// Prints the JSON Schema of the configuration, for editors
    Schema,
    /// Prints the completion script of a shell
    Completion { shell: clap_complete::Shell },
    /// Prints the manual page
    Man,
    /// Prints the configuration reference
    #[command(hide = true)]
    Reference,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Ends by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = literal::<Time>)]
    run_for: Option<Time>,
    /// Workers; one for each CPU we may use unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    cores: Option<u16>,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file; `-` is standard input
    #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo(&args),
        Command::Serve(args) => serve(&args),
        Command::Run(args) => run(&args.config),
        Command::Check(args) => check::check(&args),
        Command::Cert(args) => cert::cert(&args),
        Command::Status(args) => status::status(&args),
        Command::Show(args) => show::show(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Set(args) => set::set(&args),
        Command::Tap(args) => tap::tap(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Schema => say(&format!("{:#}\n", snapshot::json_schema())),
        Command::Completion { shell } => say(&completion(shell)),
        Command::Man => say(&manual()),
        Command::Reference => say(&snapshot::reference()),
    }
}

fn demo(args: &DemoArgs) -> ExitCode {
    demo::run(&Demo { run_for: args.run_for.map(|time| time.0), cores: args.cores.map(usize::from) })
}

fn serve(args: &ServeArgs) -> ExitCode {
    let toml = match serve::document(args) {
        Ok(document) => snapshot::print(&document),
        Err(wrong) => return refuse(USAGE, &wrong),
    };
    match compile("the flags", &toml, Path::new("")) {
        Err(report) => {
            eprint!("{}", report.render());
            ExitCode::from(CONFIG_INVALID)
        }
        Ok(compiled) => {
            // On standard error: standard output may be the access log.
            eprintln!("# These flags stand for this file; run it with: penstock run -c FILE\n{toml}");
            begin(compiled, Source::Flags { toml }, None)
        }
    }
}

fn run(config: &Path) -> ExitCode {
    match read_config(config) {
        Err(refusal) => refusal.say(),
        Ok(compiled) => {
            eprint!("{}", compiled.report.render());
            begin(compiled, Source::File(config.to_owned()), reread(config))
        }
    }
}

/// What can still be wrong on this host is said before the engine starts.
fn begin(compiled: Compiled, source: Source, reread: Option<Rc<Reread>>) -> ExitCode {
    if let Err(wrong) = usable_cores(&compiled.snapshot.engine.cores) {
        return refuse(CONFIG_INVALID, &wrong);
    }
    start::run(Arc::new(compiled.snapshot), &source, reread)
}

/// How the file is read anew; `None` where it is none.
fn reread(config: &Path) -> Option<Rc<Reread>> {
    // What is read once, a pipe for one, is gone by then.
    if config == Path::new("-") || !config.is_file() {
        return None;
    }
    let config = config.to_owned();
    Some(Rc::new(move || match read_config(&config) {
        Ok(compiled) => Ok((Arc::new(compiled.snapshot), compiled.report.render())),
        Err(refusal) => Err(refusal.text()),
    }))
}

fn usable_cores(wanted: &Cores) -> Result<Vec<u16>, String> {
    let allowed = ring::allowed_cpus().map_err(|error| format!("sched_getaffinity: {error}"))?;
    cores::choose(wanted, &allowed)
}

enum Refusal {
    /// The file cannot be read.
    File(String),
    Report(Box<snapshot::Report>),
}

impl Refusal {
    fn text(&self) -> String {
        match self {
            Self::File(wrong) => wrong.clone(),
            Self::Report(report) => report.render(),
        }
    }

    fn say(&self) -> ExitCode {
        match self {
            Self::File(wrong) => refuse(CONFIG_INVALID, wrong),
            Self::Report(report) => {
                eprint!("{}", report.render());
                ExitCode::from(CONFIG_INVALID)
            }
        }
    }
}

fn read_config(path: &Path) -> Result<Compiled, Refusal> {
    let (origin, text) = read_text(path).map_err(|error| Refusal::File(format!("{}: {error}", path.display())))?;
    // Paths are the file's, wherever the program was started.
    let folder = path.parent().filter(|_| path != Path::new("-")).unwrap_or(Path::new(""));
    compile(&origin, &text, folder).map_err(|report| Refusal::Report(Box::new(report)))
}

/// Reads a configuration whose paths are relative to `folder`.
fn compile(origin: &str, text: &str, folder: &Path) -> Result<Compiled, snapshot::Report> {
    let files = |name: &str| {
        let mut content = Vec::new();
        std::fs::File::open(folder.join(name))?
            .take(crate::limits::FIXED_BODY_BYTES_MAX as u64 + 1)
            .read_to_end(&mut content)?;
        Ok(content)
    };
    let mut compiled = snapshot::read_with(origin, text, &files)?;
    compiled.snapshot.root(folder);
    Ok(compiled)
}

/// What the file is called, and its text; both bounded.
fn read_text(path: &Path) -> std::io::Result<(String, String)> {
    let limit = crate::limits::CONFIG_BYTES_MAX;
    let mut text = String::new();
    let origin = if path == Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_string(&mut text)?;
        "standard input".to_owned()
    } else {
        std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
        path.display().to_string()
    };
    if text.len() as u64 > limit {
        return Err(std::io::Error::other(format!("is larger than {} MiB", limit >> 20)));
    }
    Ok((origin, text))
}

fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "penstock", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// One page: the program, then each command.
fn manual() -> String {
    let mut page = Vec::new();
    let mut program = Cli::command();
    program.build();
    let man = clap_mangen::Man::new(program.clone());
    let mut render = || {
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_extra_section(&mut page)?;
        let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
        for command in commands.flat_map(parts).filter(|command| command.get_name() != "help") {
            let man = clap_mangen::Man::new(command.clone());
            let name = command.get_bin_name().unwrap_or_default();
            writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
            man.render_description_section(&mut page)?;
            man.render_synopsis_section(&mut page)?;
            man.render_options_section(&mut page)?;
        }
        std::io::Result::Ok(())
    };
    render().expect("writing to memory");
    String::from_utf8_lossy(&page).into_owned()
}

/// A command; or what it consists of, where it is nothing by itself.
fn parts(command: &clap::Command) -> Vec<&clap::Command> {
    if command.has_subcommands() { command.get_subcommands().collect() } else { vec![command] }
}

/// Prints; a reader that went away (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => refuse(FAILED, &error.to_string()),
        _ => ExitCode::SUCCESS,
    }
}

fn refuse(code: u8, wrong: &str) -> ExitCode {
    eprintln!("error: {wrong}");
    ExitCode::from(code)
}

/// A configuration literal as a flag's value.
fn literal<T: Literal>(text: &str) -> Result<T, String> {
    text.parse().map_err(|wrong: snapshot::Unreadable| format!("it {wrong}"))
}

/// An admin endpoint as a flag's value.
fn admin_address(text: &str) -> Result<Address, String> {
    literal(text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pages_and_scripts_render() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            assert!(completion(shell).contains("penstock"));
        }
        let manual = manual();
        assert!(
            manual.contains("PENSTOCK SERVE") && manual.contains("PENSTOCK CERT CHECK") && manual.contains("access"),
            "{manual}"
        );
        assert!(!manual.contains("PENSTOCK REFERENCE"));
    }
}
