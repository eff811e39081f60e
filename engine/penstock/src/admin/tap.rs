//! `/tap/xdp`: samples of what the XDP shield drops, for who asks again and again.

use abi::shield::Reason;
use proto::http::Status;
use ring::Now;
use serde_json::{Value, json};

use super::order::Refused;
use crate::engine::Engine;
use crate::limits;
use crate::shield::{Headers, Sample, Tapping};
use crate::snapshot::nearest;
use crate::telemetry::access_log::rfc3339_millis;

/// Follows `{"after": NUMBER, "reasons": [REASON, …], "one_in": N}`, of which each may be left out.
pub(super) fn tap(engine: &mut Engine, content: &[u8]) -> Result<Value, Refused> {
    let refused = |why: String| Refused { status: Status::BAD_REQUEST, why };
    let tapping = wanted(content).map_err(refused)?;
    let told = engine.shield_mut().tap(tapping, ring::now()).map_err(refused)?;
    let samples: Vec<_> = told.samples.iter().map(|sample| row(engine, sample)).collect();
    Ok(json!({ "after": told.upto, "missed": told.missed, "samples": samples }))
}

fn wanted(content: &[u8]) -> Result<Tapping, String> {
    const FORM: &str = "write {\"after\": NUMBER, \"reasons\": [REASON], \"one_in\": N}, or less of it";
    let content: Value =
        serde_json::from_slice(content).map_err(|error| format!("the content is not JSON: {error}"))?;
    let object = content.as_object().ok_or_else(|| format!("the content is no object: {FORM}"))?;
    let mut tapping = Tapping { reasons: 0, one_in: 1, after: None };
    for (key, value) in object {
        match (key.as_str(), value) {
            ("after" | "one_in" | "reasons", Value::Null) => {}
            ("after", value) => tapping.after = Some(value.as_u64().ok_or("`after` is no number")?),
            ("one_in", value) => {
                let one_in = value.as_u64().and_then(|one_in| u32::try_from(one_in).ok());
                let one_in = one_in.filter(|one_in| (1..=limits::TAP_ONE_IN_MAX).contains(one_in));
                tapping.one_in =
                    one_in.ok_or_else(|| format!("`one_in` is a number from 1 to {}", limits::TAP_ONE_IN_MAX))?;
            }
            ("reasons", Value::Array(names)) => {
                for name in names {
                    tapping.reasons |= 1 << reason(name.as_str().unwrap_or_default())? as u32;
                }
            }
            (key, _) => return Err(format!("`{key}` cannot be that: {FORM}")),
        }
    }
    if tapping.reasons == 0 {
        tapping.reasons = droppings().fold(0, |bits, reason| bits | 1 << reason as u32);
    }
    Ok(tapping)
}

/// Reasons to drop a packet.
fn droppings() -> impl Iterator<Item = Reason> {
    Reason::ALL.into_iter().filter(|reason| reason.drops())
}

fn reason(name: &str) -> Result<Reason, String> {
    droppings().find(|reason| reason.name() == name).ok_or_else(|| {
        let known: Vec<_> = droppings().map(Reason::name).collect();
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("there is no reason `{name}` to drop a packet; did you mean `{near}`?"),
            None => format!("there is no reason `{name}` to drop a packet; there are: {}", known.join(", ")),
        }
    })
}

fn row(engine: &Engine, sample: &Sample) -> Value {
    let headers = Headers::of(&sample.packet);
    let ago = ring::monotonic().since(Now::from_nanos(sample.at_ns));
    let (source_port, destination_port) = headers.ports.unzip();
    json!({
        "time": rfc3339_millis(ring::wall_clock().saturating_sub(ago)),
        "verdict": if sample.is_dry { "would drop" } else { "drop" },
        "reason": sample.reason.name(),
        "interface": engine.shield().interface_of(sample.interface),
        "protocol": headers.protocol_name(),
        "source": headers.source,
        "source_port": source_port,
        "destination": headers.destination,
        "destination_port": destination_port,
        "bytes": sample.octets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let of = |text: &str| wanted(text.as_bytes());
        let all = of("{}").unwrap();
        assert_eq!((all.one_in, all.after), (1, None));
        assert_eq!(all.reasons.count_ones() as usize, droppings().count());
        let some = of(r#"{"after": 7, "reasons": ["denied", "syn_rate"], "one_in": 10}"#).unwrap();
        let wanted = 1 << Reason::Denied as u32 | 1 << Reason::SynRate as u32;
        assert_eq!(some, Tapping { reasons: wanted, one_in: 10, after: Some(7) });
        assert_eq!(of(r#"{"after": null, "reasons": []}"#).unwrap(), all);
        let most = limits::TAP_ONE_IN_MAX;
        assert!(of(&format!("{{\"one_in\": {most}}}")).is_ok());
        for (text, why) in [
            ("[]".to_owned(), "no object"),
            ("{".to_owned(), "not JSON"),
            (r#"{"afetr": 1}"#.to_owned(), "`afetr`"),
            (r#"{"after": -1}"#.to_owned(), "no number"),
            (r#"{"one_in": 0}"#.to_owned(), "from 1 to"),
            (format!("{{\"one_in\": {}}}", most + 1), "from 1 to"),
            (r#"{"reasons": "denied"}"#.to_owned(), "`reasons`"),
            (r#"{"reasons": ["dneied"]}"#.to_owned(), "did you mean `denied`?"),
            (r#"{"reasons": ["passed"]}"#.to_owned(), "no reason `passed` to drop a packet"),
        ] {
            let refused = of(&text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
