//! What a server is told, and what must come of it: rows of a table of the protocol's rules.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{H2Client, code, get};
use crate::wire::End;

/// A row: on a connection of its own, after SETTINGS.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The section that has the rule, and the rule.
    rule: &'static str,
    /// A request on stream 1 is answered before anything is said.
    answered: bool,
    said: Vec<u8>,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// GOAWAY with one of these codes, and the end of the connection.
    Connection(Vec<u32>),
    /// RST_STREAM with one of these codes, or GOAWAY if the rule leaves that open; if it is RST_STREAM, other requests are served.
    Stream { stream: u32, codes: Vec<u32>, or_connection: bool },
    /// A response with this status, and other requests are served.
    Answer(u32, u16),
    /// Nothing: other requests are served.
    Nothing,
}

/// The stream of the request that shows that others are served: above all streams of the rows.
const AFTER: u32 = 101;

impl Trial {
    fn new(rule: &'static str, said: impl Into<Vec<u8>>, wanted: Wanted) -> Self {
        Self { rule, answered: false, said: said.into(), wanted }
    }

    /// An error of the connection.
    pub fn connection(rule: &'static str, said: impl Into<Vec<u8>>, code: u32) -> Self {
        Self::new(rule, said, Wanted::Connection(vec![code]))
    }

    /// An error of stream 1.
    pub fn stream(rule: &'static str, said: impl Into<Vec<u8>>, code: u32) -> Self {
        Self::new(rule, said, Wanted::Stream { stream: 1, codes: vec![code], or_connection: false })
    }

    /// A response on stream 1.
    pub fn answer(rule: &'static str, said: impl Into<Vec<u8>>, status: u16) -> Self {
        Self::new(rule, said, Wanted::Answer(1, status))
    }

    /// No error.
    pub fn nothing(rule: &'static str, said: impl Into<Vec<u8>>) -> Self {
        Self::new(rule, said, Wanted::Nothing)
    }

    /// The rule names another code that will do.
    pub fn or(mut self, code: u32) -> Self {
        match &mut self.wanted {
            Wanted::Connection(codes) | Wanted::Stream { codes, .. } => codes.push(code),
            Wanted::Answer(..) | Wanted::Nothing => panic!("{}: no code is wanted", self.rule),
        }
        self
    }

    /// The rule leaves open whether the whole connection ends.
    pub fn or_connection(mut self) -> Self {
        if let Wanted::Stream { or_connection, .. } = &mut self.wanted {
            *or_connection = true;
        }
        self
    }

    /// It is another stream's.
    pub fn on(mut self, other: u32) -> Self {
        match &mut self.wanted {
            Wanted::Stream { stream, .. } | Wanted::Answer(stream, _) => *stream = other,
            Wanted::Connection(_) | Wanted::Nothing => panic!("{}: no stream is wanted", self.rule),
        }
        self
    }

    /// Everything is said after stream 1 has been closed by its response.
    pub fn after_an_answer(mut self) -> Self {
        self.answered = true;
        self
    }

    /// A response is to come.
    pub fn wants_an_answer(&self) -> bool {
        matches!(self.wanted, Wanted::Answer(..))
    }

    /// Tries all rows; panics with what failed.
    #[track_caller]
    pub fn all(rows: &[Self], connect: impl Fn() -> H2Client) {
        let verdict = |row: &Self| catch_unwind(AssertUnwindSafe(|| row.run(connect()))).map_err(|_| row.rule).err();
        let failed: Vec<&str> = rows.iter().filter_map(verdict).collect();
        assert!(failed.is_empty(), "{} of {} rules are broken:\n{}", failed.len(), rows.len(), failed.join("\n"));
    }

    fn run(&self, mut client: H2Client) {
        let Self { rule, answered, ref said, ref wanted } = *self;
        // A row that fails shall not take long; what is allowed takes no time.
        client.patience = Duration::from_secs(4);
        if answered {
            assert_eq!(client.get("/").status(), 200, "{rule}");
        }
        let _ = client.try_send(said);
        match wanted {
            Wanted::Connection(codes) => Self::ends(rule, &mut client, codes),
            Wanted::Stream { stream, codes, or_connection } => {
                client.until(rule, |client| client.exchange(*stream).reset.is_some() || !client.gone.is_empty());
                match client.exchange(*stream).reset {
                    Some(code) => {
                        assert!(codes.contains(&code), "{rule}: RST_STREAM has code {code} and not {codes:?}");
                        Self::serves(rule, &mut client);
                    }
                    None if *or_connection => Self::ends(rule, &mut client, codes),
                    None => panic!("{rule}: the whole connection ends, {:?}", client.gone),
                }
            }
            Wanted::Answer(stream, status) => {
                assert_eq!(client.response(*stream).status(), *status, "{rule}");
                Self::serves(rule, &mut client);
            }
            Wanted::Nothing => Self::serves(rule, &mut client),
        }
    }

    fn ends(rule: &str, client: &mut H2Client, codes: &[u32]) {
        let (code, end) = client.until_ended();
        let code = code.unwrap_or_else(|| panic!("{rule}: no GOAWAY before the end, {end:?}"));
        assert!(codes.contains(&code), "{rule}: GOAWAY has code {code} and not {codes:?}: {:?}", client.gone);
        assert_ne!(end, End::Silent, "{rule}");
    }

    fn serves(rule: &str, client: &mut H2Client) {
        let _ = client.try_send(get(AFTER, "/"));
        client.wait(AFTER);
        assert!(client.gone.iter().all(|gone| gone.code == code::NO_ERROR), "{rule}: {:?}", client.gone);
        assert_eq!(client.response(AFTER).text(), "hello\n", "{rule}: others are not served");
    }
}
