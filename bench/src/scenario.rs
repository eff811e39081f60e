//! What is asked of every contender.

use xtask::Outcome;

/// A closed loop, or (for `latency`) an open one at a fixed rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    /// What the origin serves: its path, and the length of the body.
    pub(crate) path: &'static str,
    pub(crate) body: usize,
    /// One request a connection.
    pub(crate) close: bool,
    /// Open loop: requests are due at times of their own, whether or not earlier ones were answered.
    pub(crate) paced: bool,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "c1", connections: 1, path: "/100", body: 100, close: false, paced: false },
    C64,
    Scenario { name: "c512", connections: 512, path: "/100", body: 100, close: false, paced: false },
    Scenario { name: "16k", connections: 64, path: "/16k", body: 16 << 10, close: false, paced: false },
    Scenario { name: "1m", connections: 16, path: "/1m", body: 1 << 20, close: false, paced: false },
    Scenario { name: "close", connections: 64, path: "/100", body: 100, close: true, paced: false },
    Scenario { name: "latency", connections: 64, path: "/100", body: 100, close: false, paced: true },
];

/// The one whose throughput is called a contender's capacity.
pub(crate) const C64: Scenario =
    Scenario { name: "c64", connections: 64, path: "/100", body: 100, close: false, paced: false };

impl Scenario {
    pub(crate) fn told(&self) -> String {
        let size = if self.body >= 1 << 20 {
            format!("{} MiB", self.body >> 20)
        } else if self.body >= 1 << 10 {
            format!("{} KiB", self.body >> 10)
        } else {
            format!("{} B", self.body)
        };
        let connections =
            if self.connections == 1 { "1 connection".to_owned() } else { format!("{} connections", self.connections) };
        let how = match (self.close, self.paced) {
            (true, _) => ", a connection per request",
            (_, true) => ", open loop at half of the slowest one's capacity",
            _ => "",
        };
        format!("{}: {connections}, {size}{how}", self.name)
    }
}

/// The scenarios of a list of names, in the table's order; all of them for an empty list.
pub(crate) fn chosen(names: &[&str]) -> Outcome<Vec<Scenario>> {
    if let Some(unknown) = names.iter().find(|name| !SCENARIOS.iter().any(|scenario| scenario.name == **name)) {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        return Err(format!("there is no scenario `{unknown}`: {}", known.join(", ")));
    }
    Ok(SCENARIOS.iter().filter(|scenario| names.is_empty() || names.contains(&scenario.name)).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), SCENARIOS.len());
        let names: Vec<&str> = chosen(&["1m", "c1"]).unwrap().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, ["c1", "1m"]);
        assert!(chosen(&["c65"]).unwrap_err().contains("no scenario `c65`"));
    }

    #[test]
    fn told_in_words() {
        assert_eq!(chosen(&["1m"]).unwrap()[0].told(), "1m: 16 connections, 1 MiB");
        assert_eq!(chosen(&["close"]).unwrap()[0].told(), "close: 64 connections, 100 B, a connection per request");
    }
}
