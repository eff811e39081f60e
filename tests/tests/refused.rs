//! A host that refuses io_uring: the engine runs on epoll, says so, and serves all the same.

use harness::{Driver, Origin, Setup, Sharing, Tool, binary, free_address, pattern, python, run, script};

/// Whatever driver the other tests are asked for, this is about `auto`.
#[test]
fn without_io_uring_epoll_serves() {
    run(Sharing::Shared, || {
        let origin = Origin::standard();
        let engine = Setup::new(Driver::Epoll).driver("auto").origin(&origin).launched_by(launcher()).start();
        let said = engine.err();
        assert!(said.contains("driver epoll"), "{said}");
        // Not only what runs: that it is second best, and why.
        assert!(said.contains("io_uring"), "the start-up lines do not say what was refused:\n{said}");
        let status = engine.status();
        assert_eq!(status["driver"], "epoll", "{status}");
        let mut client = engine.client();
        for _ in 0..100 {
            assert_eq!(client.get("/").text(), "hello\n");
        }
        assert!(client.get("/bytes/3000000").body == pattern(3_000_000, 3_000_000));
        assert_eq!(client.ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").text(), "hello");
        engine.terminate();
        drop(client);
        let mut engine = engine;
        assert_eq!(engine.wait(harness::PATIENCE).code(), Some(0));
    });
}

/// Who insists on io_uring is told, and not served by something else.
#[test]
fn whoever_insists_is_told() {
    run(Sharing::Shared, || {
        let folder = harness::Folder::new();
        let config = folder.write("c.toml", Setup::new(Driver::Uring).to("127.0.0.1:1").toml(free_address()));
        let [python, script] = launcher();
        let args = [script, binary().display().to_string(), "run".into(), "-c".into(), config.display().to_string()];
        let ran = Tool::new(python, 10).args(args).run();
        assert!(matches!(ran.code, Some(1..=4)), "{:?}\n{}", ran.code, ran.err);
        assert!(ran.err.contains("io_uring"), "{}", ran.err);
        assert!(ran.err.contains("epoll"), "what else there is, is not said:\n{}", ran.err);
    });
}

#[test]
fn with_io_uring_auto_is_io_uring() {
    run(Sharing::Shared, || {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        if disabled.trim() == "2" {
            println!("not available here: io_uring (kernel.io_uring_disabled is 2)");
            return;
        }
        let origin = Origin::standard();
        let engine = Setup::new(Driver::Uring).driver("auto").origin(&origin).start();
        assert_eq!(engine.status()["driver"], "uring");
        assert!(engine.err().contains("driver uring"), "{}", engine.err());
    });
}

fn launcher() -> [String; 2] {
    [python().display().to_string(), script("refuse_uring.py").display().to_string()]
}
