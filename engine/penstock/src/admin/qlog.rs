//! qlog: what an operator says of whose connections are written down.

use proto::http::Status;
use serde_json::{Value, json};

use super::order::Refused;
use crate::engine::Engine;
use crate::snapshot::Cidr;

/// Follows an operator's word on connections with a network: `on` or `off`.
pub(super) fn follow(engine: &Engine, name: &str, to: &str, who: &str) -> Result<Value, Refused> {
    let refused = |status, why: String| Refused { status, why };
    let network: Cidr = name.parse().map_err(|wrong| refused(Status::BAD_REQUEST, format!("`{name}` {wrong}")))?;
    let on = match to {
        "on" => true,
        "off" => false,
        _ => {
            let why = format!("`{to}` is nothing that it can be; write one of: on, off");
            return Err(refused(Status::BAD_REQUEST, why));
        }
    };
    let nowhere = || refused(Status::CONFLICT, "there is nowhere to write to: `log.qlog.folder` names none".to_owned());
    let was = engine.qlog().ok_or_else(nowhere)?.tell(network, on).map_err(|why| refused(Status::CONFLICT, why))?;
    eprintln!("penstock: qlog: {network}: {to}, told by {who}");
    Ok(json!({ "qlog": network.to_string(), "is": to, "was": if was { "on" } else { "off" } }))
}
