//! Sessions that stay where they began: the signed cookie, a header, the client's address, and what becomes of them when an
//! endpoint drains, dies or is taken out.

use std::collections::HashSet;

use harness::{Client, Driver, Engine, Folder, Message, Origin, PATIENCE, Setup, Tool, binary, on_each_driver, until};

/// 64 digits, as `openssl rand -hex 32` makes them.
const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

on_each_driver! {
    /// Set once, honoured on every connection, told to no endpoint; other cookies pass.
    fn a_cookie_holds_its_client(driver) {
        let origins = named(4);
        let engine = start(driver, &origins, "sticky = { cookie = \"at\" }");
        let mut homes = HashSet::new();
        for _ in 0..40 {
            let first = engine.client().get("/");
            let (home, cookie) = (first.text(), cookie_of(&first).expect("a cookie with the first answer"));
            let set = first.field("set-cookie").unwrap().to_owned();
            assert_eq!(set, format!("{cookie}; Path=/; HttpOnly; SameSite=Lax"));
            for _ in 0..4 {
                let mut client = engine.client();
                let again = ask(&mut client, &format!("Cookie: a=1; {cookie}; b=\"2\"\r\n"));
                assert_eq!(again.text(), home);
                assert_eq!(cookie_of(&again), None, "it is known already");
                assert_eq!(again.field("x-cookie"), Some("a=1; b=\"2\""), "what the endpoint saw");
                assert_eq!(ask(&mut client, &format!("Cookie: {cookie}\r\n")).field("x-cookie"), None);
            }
            homes.insert(home);
        }
        assert_eq!(homes.len(), 4, "{homes:?}");
        let value = cookie_of(&engine.client().get("/")).unwrap();
        assert!(origins.iter().all(|origin| !value.contains(&origin.address.port().to_string())), "{value}");
    }

    /// What we did not sign is as good as not there, and breaks nothing.
    fn a_made_up_cookie_chooses_nothing(driver) {
        let origins = named(2);
        let engine = start(driver, &origins, "sticky = { cookie = \"at\" }\nbalance = \"round-robin\"");
        let cookie = cookie_of(&engine.client().get("/")).unwrap();
        let flipped = cookie.replace(|digit: char| digit.is_ascii_digit(), "a");
        let long = format!("at={}", "f".repeat(8_000));
        for hostile in [
            "at=", "at", "at=at=at", "at=\"", "at=%00", "at=\u{e9}", ";;;=;at=;", "AT=1", &flipped, &long,
            &format!("{cookie}0"), &cookie[..cookie.len() - 1],
        ] {
            let mut client = engine.client();
            let homes: HashSet<_> = (0..2).map(|_| {
                let answer = ask(&mut client, &format!("Cookie: {hostile}\r\n"));
                assert!(cookie_of(&answer).is_some(), "{hostile}: a good one in its place");
                answer.text()
            }).collect();
            assert_eq!(homes.len(), 2, "{hostile}: it must not choose");
        }
        // Of many, the one that is ours counts.
        let home = ask(&mut engine.client(), &format!("Cookie: {cookie}\r\n")).text();
        let among = ask(&mut engine.client(), &format!("Cookie: at=1; {cookie}; at=2\r\n"));
        assert_eq!((among.text(), cookie_of(&among)), (home, None));
    }

    /// A drained endpoint keeps its sessions and gets no new ones; under maintenance it loses them, for good.
    fn sessions_end_where_they_began_unless_it_is_gone(driver) {
        let origins = named(3);
        let engine = start(driver, &origins, "sticky = { cookie = \"at\" }");
        let (home, cookie) = session_at(&engine, "0");
        let name = origins[0].address.to_string();
        order(&engine, &["endpoint", &name, "drain"]);
        for _ in 0..20 {
            let held = ask(&mut engine.client(), &format!("Cookie: {cookie}\r\n"));
            assert_eq!((held.text(), cookie_of(&held)), (home.clone(), None));
            assert_ne!(engine.client().get("/").text(), home, "a new session");
        }
        order(&engine, &["endpoint", &name, "maint"]);
        let moved = ask(&mut engine.client(), &format!("Cookie: {cookie}\r\n"));
        let (new_home, new_cookie) = (moved.text(), cookie_of(&moved).expect("the new home"));
        assert_ne!(new_home, home);
        order(&engine, &["endpoint", &name, "ready"]);
        for _ in 0..10 {
            assert_eq!(ask(&mut engine.client(), &format!("Cookie: {new_cookie}\r\n")).text(), new_home);
        }
        assert!(engine.metrics().sum("sticky_moved_total") >= 1);
    }

    /// An endpoint that dies costs its clients their session, and not a request.
    fn a_dead_endpoints_sessions_move(driver) {
        let mut origins = named(3);
        let engine = start(driver, &origins, "sticky = { cookie = \"at\" }");
        let (home, cookie) = session_at(&engine, "2");
        drop(origins.pop());
        let mut moved = None;
        for _ in 0..20 {
            let answer = ask(&mut engine.client(), &format!("Cookie: {}\r\n", moved.as_ref().unwrap_or(&cookie)));
            assert_eq!(answer.status(), 200);
            assert_ne!(answer.text(), home);
            moved = cookie_of(&answer).or(moved);
        }
        assert!(moved.is_some());
    }

    /// A secret that is replaced on disk ends no session: the old one is believed while it stands below the new one, and not afterwards.
    fn a_new_secret_ends_no_session(driver) {
        let origins = named(4);
        let folder = Folder::new();
        let file = folder.write("secret", SECRET);
        let engine = start(driver, &origins, &format!("sticky = {{ cookie = \"at\", secret = \"file:{}\" }}", file.display()));
        let sessions: Vec<_> = ["0", "1", "2", "3"].map(|home| session_at(&engine, home)).into();
        let new = SECRET.replace("00", "ff");
        let replace = |text: &str, told: &str| {
            let before = engine.err().matches(told).count();
            std::fs::rename(folder.write("next", text), &file).expect("a file of our own");
            until(told, PATIENCE, || engine.err().matches(told).count() > before);
        };
        replace("hunter2", "the old secrets stay");
        assert!(!engine.err().contains("hunter2"));
        replace(&format!("{new}\n{SECRET}\n"), "new secrets of its sticky cookie");
        let mut moved = Vec::new();
        for (home, cookie) in &sessions {
            let renewed = until_some("a cookie of the new secret", || {
                let answer = ask(&mut engine.client(), &format!("Cookie: {cookie}\r\n"));
                assert_eq!(&answer.text(), home, "the session stays");
                cookie_of(&answer)
            });
            assert_ne!(&renewed, cookie);
            let again = ask(&mut engine.client(), &format!("Cookie: {renewed}\r\n"));
            assert_eq!((&again.text(), cookie_of(&again)), (home, None));
            moved.push((home, renewed));
        }
        replace(&new, "new secrets of its sticky cookie");
        until("the old one is believed no more", PATIENCE, || {
            let homes: HashSet<_> = (0..8).map(|_| ask(&mut engine.client(), &format!("Cookie: {}\r\n", sessions[0].1)).text()).collect();
            homes.len() > 1
        });
        for (home, cookie) in moved {
            assert_eq!(&ask(&mut engine.client(), &format!("Cookie: {cookie}\r\n")).text(), home);
        }
    }

    /// With one secret every process knows the sessions of all; without one, only its own.
    fn a_secret_outlives_the_process(driver) {
        let origins = named(4);
        let folder = Folder::new();
        let file = folder.write("secret", SECRET);
        for (line, knows) in [
            (format!("sticky = {{ cookie = \"at\", secret = \"file:{}\" }}", file.display()), true),
            ("sticky = { cookie = \"at\", secret = \"env:STICKY_SECRET\" }".to_owned(), true),
            ("sticky = { cookie = \"at\" }".to_owned(), false),
        ] {
            let begin = || setup(driver, &origins, &line).env("STICKY_SECRET", SECRET).start();
            let cookie = cookie_of(&begin().client().get("/")).unwrap();
            let answer = ask(&mut begin().client(), &format!("Cookie: {cookie}\r\n"));
            assert_eq!(cookie_of(&answer).is_none(), knows, "{line}");
        }
    }

    /// A shared cache would hand one client's cookie to all.
    fn what_is_for_everybody_carries_no_cookie(driver) {
        for (control, carries) in [
            ("public, max-age=60", false),
            ("s-maxage=9", false),
            ("max-age=60", true),
            ("private", true),
            ("no-store, x-public=1", true),
        ] {
            let origins = [Origin::answering(move |_| {
                Some(format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nContent-Length: 0\r\n\r\n").into())
            })];
            let answer = start(driver, &origins, "sticky = { cookie = \"at\" }").client().get("/");
            assert_eq!((answer.status(), cookie_of(&answer).is_some()), (200, carries), "{control}");
        }
    }

    /// The same value goes to the same endpoint; without it there is no session.
    fn a_header_holds_its_session(driver) {
        let origins = named(4);
        let engine = start(driver, &origins, "sticky = { header = \"X-Session\" }\nbalance = \"round-robin\"");
        let mut homes = HashSet::new();
        for session in 0..40 {
            let header = format!("x-session: s{session}\r\n");
            let home = ask(&mut engine.client(), &header).text();
            for _ in 0..3 {
                assert_eq!(ask(&mut engine.client(), &header).text(), home);
            }
            homes.insert(home);
        }
        assert_eq!(homes.len(), 4);
        let mut client = engine.client();
        let unbound: HashSet<_> = (0..4).map(|_| client.get("/").text()).collect();
        assert_eq!(unbound.len(), 4, "in turn");
    }

    fn an_address_holds_its_session(driver) {
        let origins = named(4);
        let engine = start(driver, &origins, "sticky = { client_address = true }\nbalance = \"round-robin\"");
        let homes: HashSet<_> = (0..20).map(|_| engine.client().get("/").text()).collect();
        assert_eq!(homes.len(), 1);
    }
}

/// Origins that answer with their number, and with the cookies that they were sent.
fn named(count: usize) -> Vec<Origin> {
    let one = |number: usize| {
        Origin::answering(move |request| {
            let cookies: Vec<_> =
                request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie")).collect();
            let told = cookies.iter().map(|(_, value)| format!("X-Cookie: {value}\r\n")).collect::<String>();
            let body = number.to_string();
            Some(format!("HTTP/1.1 200 OK\r\n{told}Content-Length: {}\r\n\r\n{body}", body.len()).into())
        })
    };
    (0..count).map(one).collect()
}

fn setup(driver: Driver, origins: &[Origin], lines: &str) -> Setup {
    origins.iter().fold(Setup::new(driver).pool_line(lines), |setup, origin| setup.origin(origin))
}

fn start(driver: Driver, origins: &[Origin], lines: &str) -> Engine {
    setup(driver, origins, lines).start()
}

#[track_caller]
fn ask(client: &mut Client, fields: &str) -> Message {
    client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

/// `name=value` of the cookie that an answer sets.
fn cookie_of(answer: &Message) -> Option<String> {
    answer.field("set-cookie").and_then(|value| value.split(';').next()).map(str::to_owned)
}

/// A session at that origin, and its cookie.
#[track_caller]
fn session_at(engine: &Engine, origin: &str) -> (String, String) {
    let mut found = None;
    until("a session begins there", PATIENCE, || {
        let answer = engine.client().get("/");
        found = (answer.text() == origin).then(|| (answer.text(), cookie_of(&answer).expect("a cookie")));
        found.is_some()
    });
    found.expect("just seen")
}

#[track_caller]
fn order(engine: &Engine, args: &[&str]) {
    let admin = engine.admin.to_string();
    Tool::new(binary(), 10).args(["set"]).args(args).args(["--admin", &admin]).succeed();
}

/// Asks until there is an answer to be had.
#[track_caller]
fn until_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, PATIENCE, || {
        found = ask();
        found.is_some()
    });
    found.expect("just seen")
}
