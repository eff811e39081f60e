//! A client that behaves: one connection, and requests at a steady rate, whether or not earlier ones were slow. Over HTTP/3 it is the load generator's.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::h2::frame::{END_STREAM, Kind};
use xtask::Outcome;

use super::wire::{Heard, Line, get, stream, window_update};
use crate::load::h3;
use crate::scenario::Over;
use crate::tls;

/// Times from when each request was due to the end of its answer, in microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Times(Vec<f64>);

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The smallest time that so many in a thousand do not exceed.
    pub(super) fn quantile(&self, per_mille: usize) -> Option<f64> {
        let at = (self.0.len() * per_mille).div_ceil(1_000).saturating_sub(1);
        self.0.get(at).copied()
    }
}

/// Asks for a time, so many times a second. A request that is not answered is an error.
pub(super) fn measure(over: Over, to: SocketAddr, trust: &Path, rate: f64, time: Duration) -> Outcome<Times> {
    if over == Over::H3 {
        return h3::steadily(to, trust, rate, time).map(Times::of);
    }
    let config = Arc::new(tls::h2_client(trust)?);
    let mut line = Line::connect(&config, to, &[], true).map_err(|error| format!("{to}: {error}"))?;
    let (mut times, mut nth, begun) = (Vec::new(), 0, Instant::now());
    let mut ask = || -> io::Result<Vec<f64>> {
        line.say(&window_update(0, 0x7000_0000))?;
        loop {
            let due = begun + Duration::from_secs_f64(f64::from(nth) / rate);
            if due.duration_since(begun) >= time {
                return Ok(std::mem::take(&mut times));
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            answered(&mut line, stream(nth))?;
            times.push(due.elapsed().as_secs_f64() * 1e6);
            nth += 1;
        }
    };
    ask().map(Times::of).map_err(|error| format!("the client that behaves was not answered: {error}"))
}

fn answered(line: &mut Line, stream: u32) -> io::Result<()> {
    line.say(&get(stream, "/100"))?;
    loop {
        while let Some((head, _)) = line.frame()? {
            match head.kind {
                Kind::Reset | Kind::GoAway => return Err(io::Error::other(format!("{:?} came", head.kind))),
                Kind::Data | Kind::Headers if head.stream == stream && head.has(END_STREAM) => return Ok(()),
                _ => {}
            }
        }
        if matches!(line.hear()?, Heard::End) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let times = Times::of((1..=1_000).rev().map(f64::from).collect());
        assert_eq!(
            (times.quantile(500), times.quantile(990), times.quantile(1_000)),
            (Some(500.0), Some(990.0), Some(1000.0))
        );
        assert_eq!(Times::default().quantile(990), None);
        assert_eq!(Times::of(vec![3.0]).quantile(500), Some(3.0));
    }
}
