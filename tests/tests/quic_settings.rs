//! What an operator says of QUIC: how much is under way, and secrets that processes and machines share.

use harness::{
    Authority, Folder, Issued, Kind, Origin, PATIENCE, Setup, Tool, binary, free_address, on_each_driver, quic, until,
};

on_each_driver! {
    fn every_congestion_control_serves(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let (authority, issued) = site(&folder);
        for congestion in ["cubic", "newreno", "bbr"] {
            let line = format!("http3.congestion = \"{congestion}\"");
            let engine = Setup::new(driver).origin(&origin).listen_line(&issued.line()).listen_line(&line).start();
            let mut visitor = quic::Visitor::connect(engine.address, &quic::config(&authority, 64 << 10));
            until("the download is complete", PATIENCE, || {
                visitor.turn("/bytes/1000000");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended, Some(Ok(())), "{congestion}");
            assert!(visitor.received > 1_000_000, "{congestion}");
        }
    }

    /// A process that dies leaves connections behind of which the next one knows nothing but the secret: it is enough to tell their clients, who so begin anew
    /// at once and not when their patience is over (RFC 9000 §10.3). Also when the fleet has gone on to another secret meanwhile.
    fn clients_of_a_process_that_died_are_told(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let (authority, issued) = site(&folder);
        let address = free_address();
        let config = quic::config(&authority, 64 << 10);
        let (old, new) = ("3 ".to_owned() + &"0a".repeat(32) + "\n", "# of today\n5 ".to_owned() + &"0B".repeat(32) + "\n");
        for (before, after) in [(old.clone(), old.clone()), (old.clone(), new + &old)] {
            let secrets = folder.join("secrets");
            let start = |text: &str| {
                std::fs::write(&secrets, text).expect("a file of our own");
                let line = format!("quic = {{ secrets = {secrets:?}, server = 9 }}");
                let setup = Setup::new(driver).at(address).cores("auto").engine_line(&line);
                setup.origin(&origin).listen_line(&issued.line()).start()
            };
            let mut engine = start(&before);
            let mut visitor = quic::Visitor::connect(address, &config);
            until("an answer", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended.take(), Some(Ok(())));
            engine.kill();
            engine.wait(PATIENCE);
            let engine = start(&after);
            visitor.ping();
            until("the client knows", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended, Some(Err("reset by peer".to_owned())));
            drop(engine);
        }
    }
}

/// What is wrong with a file of secrets is said before anything is served.
#[test]
fn a_bad_file_of_secrets_is_told() {
    harness::run(harness::Sharing::Shared, || {
        let folder = Folder::new();
        let secrets = folder.write("secrets", "7 00\n");
        let toml = format!(
            "[engine]\nquic.secrets = {secrets:?}\n[[listen]]\nname = \"l\"\naddr = \"{}\"\n\
             [[pool]]\nname = \"p\"\nendpoints = [\"127.0.0.1:9\"]\n[[route]]\npool = \"p\"\n",
            free_address()
        );
        let config = folder.write("c.toml", toml).display().to_string();
        let ran = Tool::new(binary(), 30).args(["check", "-c", &config]).run();
        assert_ne!(ran.code, Some(0));
        assert!(ran.err.contains("line 1: write a number from 0 to 6"), "{}", ran.err);
    });
}

fn site(folder: &Folder) -> (Authority, Issued) {
    let authority = Authority::new(folder, "ca");
    let issued = authority.issue(folder, "site", &["localhost"], Kind::Ecdsa);
    (authority, issued)
}
