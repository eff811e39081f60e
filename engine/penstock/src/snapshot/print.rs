//! A document as canonical TOML: sections in the schema's order, what lies deeper inline, defaults left out or all said.

use super::schema::{AccessDoc, ClassDoc, Document, ListenDoc, PoolDoc, QlogDoc, RouteDoc, VipDoc};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write;

/// What differs from the defaults.
#[must_use]
pub fn print(document: &Document) -> String {
    let mut full = value(document);
    for class in full["classes"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        strip(class, &value(&ClassDoc::default()));
    }
    for (section, default) in defaults() {
        match &mut full[section] {
            Value::Array(items) => items.iter_mut().for_each(|item| strip(item, &default)),
            table => strip(table, &default),
        }
    }
    render(&full)
}

/// Everything, defaults included.
#[must_use]
pub fn complete(document: &Document) -> String {
    render(&value(document))
}

fn defaults() -> [(&'static str, Value); 9] {
    let document = Document::default();
    let mut log = value(&document.log);
    log["access"] = value(&AccessDoc::default());
    log["qlog"] = value(&QlogDoc::default());
    [
        ("engine", value(&document.engine)),
        ("log", log),
        ("shield", value(&document.shield)),
        ("balance", value(&document.balance)),
        ("decap", value(&document.decap)),
        ("listen", value(&ListenDoc::default())),
        ("vip", value(&VipDoc::default())),
        ("pool", value(&PoolDoc::default())),
        ("route", value(&RouteDoc::default())),
    ]
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).expect("a document has text keys and finite numbers")
}

fn strip(item: &mut Value, default: &Value) {
    let Some(table) = item.as_object_mut() else {
        return;
    };
    table.retain(|key, value| {
        if value.is_object() {
            strip(value, &default[key]);
            return value.as_object().is_some_and(|table| !table.is_empty());
        }
        *value != default[key.as_str()]
    });
}

fn render(document: &Value) -> String {
    let mut out = String::new();
    for (section, content) in document.as_object().into_iter().flatten() {
        match content {
            Value::Array(items) => {
                items.iter().for_each(|item| render_section(&format!("[[{section}]]"), item, &mut out))
            }
            table if table.as_object().is_some_and(|table| !table.is_empty()) => {
                render_section(&format!("[{section}]"), table, &mut out);
            }
            _ => {}
        }
    }
    out
}

fn render_section(header: &str, content: &Value, out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{header}");
    for (key, value) in content.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let _ = writeln!(out, "{key} = {}", inline(value));
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => inline_table(table),
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

fn inline_table(table: &Map<String, Value>) -> String {
    let entries: Vec<_> = table
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| format!("{key} = {}", inline(value)))
        .collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

/// A basic string. JSON's escapes are TOML's, apart from DEL, which JSON lets stand.
fn quote(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
