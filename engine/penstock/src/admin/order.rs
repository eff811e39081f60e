//! `/set/…`: what an operator wants of an endpoint, of its breaker, or of a route's, from now on.

use std::sync::Arc;

use proto::http::Status;
use serde_json::{Value, json};

use super::view;
use crate::engine::Engine;
use crate::limits;
use crate::snapshot::{PoolId, RouteId, nearest};
use crate::upstream::{Admin, AdminState, BreakerOrder};

/// What can be set, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Endpoint,
    Breaker,
    Route,
    /// Whether a network's packets are dropped.
    Shield,
    /// Whether a pool's requests skip TCP on this host.
    SameHost,
    /// Whether connections of a network's clients are written down.
    Qlog,
}

/// Why an order is not followed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: Status,
    pub(super) why: String,
}

impl Refused {
    pub(super) fn new(status: Status, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// An order as it comes: `{"name": "10.0.0.1:80", "pool": "api", "to": "drain"}`, the pool where the name alone does not tell.
struct Order<'a> {
    name: &'a str,
    pool: Option<&'a str>,
    to: &'a str,
}

/// Follows an order, or says why not. `who` is noted with it.
pub(super) fn follow(engine: &mut Engine, what: What, content: &[u8], who: &str) -> Result<Value, Refused> {
    let content: Value = serde_json::from_slice(content)
        .map_err(|error| Refused::new(Status::BAD_REQUEST, format!("the content is not JSON: {error}")))?;
    let order = Order::read(&content)?;
    if what == What::Route {
        return follow_route(engine, &order, who);
    }
    if what == What::Shield {
        return super::shield::follow(engine, order.name, order.to, who);
    }
    if what == What::SameHost {
        return super::samehost::follow(engine, order.name, order.to, who);
    }
    if what == What::Qlog {
        return super::qlog::follow(engine, order.name, order.to, who);
    }
    let (what, order) = match order.to.strip_prefix("breaker=") {
        Some(to) if what == What::Endpoint => (What::Breaker, Order { to, ..order }),
        _ => (what, order),
    };
    let (pool, before) = find(engine, &order)?;
    let after = change(what, before, order.to).map_err(|why| Refused::new(Status::BAD_REQUEST, why))?;
    let (was, is) = (text(what, before, after), order.to);
    let told = format!("{}{is} (was {was}), told by {who}", if what == What::Breaker { "breaker " } else { "" });
    if !engine.set_admin(pool, order.name, after, told) {
        return Err(Refused::new(Status::NOT_FOUND, format!("`{}` has just left the pool", order.name)));
    }
    let in_flight = view::endpoints(engine)
        .find(|of| of.name == order.name && *of.pool == *engine.snapshot()[pool].name)
        .map_or(0, |of| of.sums.in_flight);
    Ok(json!({
        "pool": engine.snapshot()[pool].name,
        "endpoint": order.name,
        "is": is,
        "was": was,
        "in_flight": in_flight,
    }))
}

/// The breaker of a route is all that an operator has to say of it.
fn follow_route(engine: &Engine, order: &Order<'_>, who: &str) -> Result<Value, Refused> {
    let snapshot = Arc::clone(engine.snapshot());
    let named = |name: &str| snapshot.routes.iter().position(|route| &*route.name == name);
    let Some(at) = named(order.name) else {
        let why = match nearest(order.name, snapshot.routes.iter().map(|route| &*route.name)) {
            Some(near) => format!("there is no route `{}`; did you mean `{near}`?", order.name),
            None => format!("there is no route `{}`: `penstock show routes` lists them", order.name),
        };
        return Err(Refused::new(Status::NOT_FOUND, why));
    };
    let to = order.to.strip_prefix("breaker=").unwrap_or(order.to);
    let after = change(What::Breaker, Admin::default(), to).map_err(|why| Refused::new(Status::BAD_REQUEST, why))?;
    let id = RouteId(at as u16);
    let none = || Refused::new(Status::CONFLICT, format!("the route `{}` has no breaker", order.name));
    let before = engine.breakers().of(id).ok_or_else(none)?.order();
    let was = order_text(before);
    engine.order_route(id, after.breaker, format!("breaker {to} (was {was}), told by {who}"));
    Ok(json!({ "route": order.name, "is": to, "was": was }))
}

impl<'a> Order<'a> {
    fn read(content: &'a Value) -> Result<Self, Refused> {
        let form = "write {\"name\": ENDPOINT, \"to\": CHANGE}, and \"pool\" where several have it";
        let refused = |why: &str| Refused::new(Status::BAD_REQUEST, format!("{why}: {form}"));
        let object = content.as_object().ok_or_else(|| refused("the content is no object"))?;
        if let Some(key) = object.keys().find(|key| !["name", "pool", "to"].contains(&key.as_str())) {
            return Err(refused(&format!("unknown key `{key}`")));
        }
        let text = |key: &str| {
            object.get(key).map(|value| value.as_str().ok_or_else(|| refused(&format!("`{key}` is no text"))))
        };
        let missing = |key: &str| refused(&format!("`{key}` is missing"));
        Ok(Self {
            name: text("name").ok_or_else(|| missing("name"))??,
            pool: text("pool").transpose()?,
            to: text("to").ok_or_else(|| missing("to"))??,
        })
    }
}

/// The one endpoint that is meant, and what was said of it before.
fn find(engine: &Engine, order: &Order<'_>) -> Result<(PoolId, Admin), Refused> {
    let not_found = |why| Refused::new(Status::NOT_FOUND, why);
    let only = order.pool.map(|name| view::pool_named(engine, name)).transpose().map_err(not_found)?;
    let pools = view::pools(engine).map(|(id, _)| id).filter(|id| only.is_none_or(|only| only == *id));
    let found: Vec<_> = pools
        .filter_map(|id| {
            let members = engine.roster().members(id);
            members.iter().find(|member| &*member.name == order.name).map(|member| (id, member.shared.admin()))
        })
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(not_found(unknown(engine, order, only))),
        several => {
            let pools: Vec<&str> = several.iter().map(|(id, _)| &*engine.snapshot()[*id].name).collect();
            let why =
                format!("`{}` is in {} pools: {}; say which with --pool", order.name, pools.len(), pools.join(", "));
            Err(Refused::new(Status::CONFLICT, why))
        }
    }
}

fn unknown(engine: &Engine, order: &Order<'_>, only: Option<PoolId>) -> String {
    let only = only.map(|id| &*engine.snapshot()[id].name);
    let names: Vec<&str> =
        view::endpoints(engine).filter(|of| only.is_none_or(|only| of.pool == only)).map(|of| of.name).collect();
    let place = only.map(|pool| format!(" in the pool `{pool}`")).unwrap_or_default();
    match nearest(order.name, names) {
        Some(near) => format!("there is no endpoint `{}`{place}; did you mean `{near}`?", order.name),
        None => format!("there is no endpoint `{}`{place}: `penstock show endpoints` lists them", order.name),
    }
}

/// What the operator's word is after a change of it.
fn change(what: What, before: Admin, to: &str) -> Result<Admin, String> {
    let words: &[&str] = match what {
        What::Endpoint => &["drain", "ready", "maint", "weight=N", "weight=auto", "breaker=open|closed|auto"],
        What::Breaker | What::Route => &["open", "closed", "auto"],
        What::Shield | What::SameHost | What::Qlog => &[],
    };
    match (what, to) {
        (What::Endpoint, "ready") => Ok(Admin { state: AdminState::Ready, ..before }),
        (What::Endpoint, "drain") => Ok(Admin { state: AdminState::Drain, ..before }),
        (What::Endpoint, "maint") => Ok(Admin { state: AdminState::Maint, ..before }),
        (What::Breaker, "auto") => Ok(Admin { breaker: BreakerOrder::Auto, ..before }),
        (What::Breaker, "open") => Ok(Admin { breaker: BreakerOrder::Open, ..before }),
        (What::Breaker, "closed") => Ok(Admin { breaker: BreakerOrder::Closed, ..before }),
        (What::Endpoint, _) if to.starts_with("weight=") => {
            weight(&to["weight=".len()..]).map(|weight| Admin { weight, ..before })
        }
        _ => Err(match nearest(to, words.iter().copied()) {
            Some(near) => format!("`{to}` is nothing that it can be; did you mean `{near}`?"),
            None => format!("`{to}` is nothing that it can be; write one of: {}", words.join(", ")),
        }),
    }
}

fn weight(text: &str) -> Result<Option<u32>, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(None),
        (_, Ok(weight @ 0..=limits::WEIGHT_MAX)) => Ok(Some(weight)),
        _ => Err(format!(
            "a weight is a number from 0 to {}, or `auto` for the one it was found with",
            limits::WEIGHT_MAX
        )),
    }
}

/// What was said before, of the thing that `after` changes.
fn text(what: What, before: Admin, after: Admin) -> String {
    match what {
        What::Breaker | What::Route => order_text(before.breaker).into(),
        What::Endpoint if before.weight != after.weight => {
            before.weight.map_or_else(|| "weight=auto".into(), |weight| format!("weight={weight}"))
        }
        What::Endpoint | What::Shield | What::SameHost | What::Qlog => before.state.text().into(),
    }
}

const fn order_text(order: BreakerOrder) -> &'static str {
    match order {
        BreakerOrder::Auto => "auto",
        BreakerOrder::Open => "forced open",
        BreakerOrder::Closed => "forced closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(what: What, to: &str) -> Result<Admin, String> {
        let before = Admin { state: AdminState::Drain, weight: Some(3), breaker: BreakerOrder::Open };
        change(what, before, to)
    }

    #[test]
    fn a_change_changes_one_thing() {
        let before = Admin { state: AdminState::Drain, weight: Some(3), breaker: BreakerOrder::Open };
        for (what, to, wanted) in [
            (What::Endpoint, "ready", Admin { state: AdminState::Ready, ..before }),
            (What::Endpoint, "drain", before),
            (What::Endpoint, "maint", Admin { state: AdminState::Maint, ..before }),
            (What::Endpoint, "weight=0", Admin { weight: Some(0), ..before }),
            (What::Endpoint, "weight=65535", Admin { weight: Some(65_535), ..before }),
            (What::Endpoint, "weight=auto", Admin { weight: None, ..before }),
            (What::Breaker, "auto", Admin { breaker: BreakerOrder::Auto, ..before }),
            (What::Breaker, "closed", Admin { breaker: BreakerOrder::Closed, ..before }),
        ] {
            assert_eq!(changed(what, to), Ok(wanted), "{to}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused_with_what_was_meant() {
        for (what, to, hint) in [
            (What::Endpoint, "drian", "`drain`"),
            (What::Endpoint, "open", "one of: drain"),
            (What::Endpoint, "weight", "`weight=N`"),
            (What::Endpoint, "weight=65536", "0 to 65535"),
            (What::Endpoint, "weight=-1", "0 to 65535"),
            (What::Breaker, "close", "`closed`"),
            (What::Breaker, "drain", "one of: open"),
            (What::Breaker, "", "one of: open"),
        ] {
            let why = changed(what, to).unwrap_err();
            assert!(why.contains(hint), "{to}: {why}");
        }
    }

    #[test]
    fn an_order_is_read_strictly() {
        let read = |text: &str| {
            Order::read(&serde_json::from_str(text).unwrap()).map(|order| order.to.to_owned()).map_err(|no| no.why)
        };
        assert_eq!(read(r#"{"name": "a", "to": "drain"}"#), Ok("drain".into()));
        for (text, hint) in [
            ("[]", "no object"),
            (r#"{"name": "a"}"#, "`to` is missing"),
            (r#"{"to": "drain"}"#, "`name` is missing"),
            (r#"{"name": "a", "to": 1}"#, "`to` is no text"),
            (r#"{"name": "a", "to": "drain", "poll": "x"}"#, "unknown key `poll`"),
        ] {
            assert!(read(text).unwrap_err().contains(hint), "{text}");
        }
    }
}
