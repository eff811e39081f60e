//! `cargo xtask …`: everything that is scripted in this repository. There are no shell scripts but `.ci/run`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use xtask::tasks;

const HELP: &str = "\
cargo xtask <task>

  test [--driver epoll] [filter…]   install what the tests need, build the real binary, run every test (--draw: and a seed of the day)
  tidy                              layering, unsafe, clocks, length, words: the rules no compiler checks
  sim [--seeds N] [--from S]        the simulation's long mode (default 100000 seeds from 0)
  fuzz [--seconds N] [target…]      every fuzz target for N seconds each (default 30)
  sanitize [address|thread|loom]…   engine/ring under AddressSanitizer, ThreadSanitizer, loom (default all)
  deny                              licences and bans of every dependency (installs cargo-deny)
  bench h1|tls|h2|h3|grpc|ws …      measure against rivals; `cargo xtask bench help` says how
  dist                              the release binary with manual page and completions in target/dist
  ebpf [--check]                    build the eBPF programs; or see that the committed object is what their source makes
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match arguments.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match task {
        "test" => tasks::test::run(rest),
        "tidy" => tasks::tidy(rest),
        "sim" => tasks::sim::run(rest),
        "fuzz" => tasks::fuzz::run(rest),
        "sanitize" => tasks::sanitize::run(rest),
        "deny" => tasks::deny(rest),
        "bench" => tasks::bench(rest),
        "dist" => tasks::dist::run(rest),
        "ebpf" => tasks::ebpf::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no task `{other}`\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {task}: {why}");
            ExitCode::FAILURE
        }
    }
}
