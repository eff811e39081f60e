//! The configuration reference, rendered from the schema: `docs/configuration.md`.

use super::{literal, schema::json_schema, shape::choices};
use serde_json::Value;
use std::fmt::Write;

const OPENING: &str = "\
<!-- Made by `penstock reference` from engine/penstock/src/snapshot/schema.rs. Change it there. -->
# Configuration

A configuration is one TOML file. Every key has a default unless it is marked **required**; an unknown key is an error, with
its place and a suggestion. `penstock check -c FILE` says everything that is wrong at once, `penstock check --defaults` prints
the file with every default filled in, and `penstock schema` prints a JSON Schema for editors. What `penstock serve` takes as
flags it prints as such a file.

```toml
[[listen]]
name = \"web\"
addr = \":8080\"

[[pool]]
name = \"api\"
endpoints = [\"10.0.0.1:8080\", \"10.0.0.2:8080 weight=2\"]

[[pool]]
name = \"pages\"
endpoints = [\"pages.internal:80\", \"file:/etc/penstock/more-pages tier=1\"]

[[route]]
host = \"api.example.net\"
path = \"/v1/*\"
pool = \"api\"

[[route]]
pool = \"pages\"
```
";

/// The whole page, as Markdown.
#[must_use]
pub fn reference() -> String {
    let schema = json_schema();
    let mut out = OPENING.to_owned();
    for (name, section) in schema["properties"].as_object().into_iter().flatten() {
        let (heading, table) = match section.get("items") {
            Some(items) => (format!("[[{name}]]"), items),
            None if section["additionalProperties"].is_object() => {
                (format!("[{name}.NAME]"), &section["additionalProperties"])
            }
            None => (format!("[{name}]"), section),
        };
        let _ = writeln!(out, "\n## `{heading}`\n\n{}\n", description(section));
        let _ = writeln!(out, "| key | value | default | meaning |\n|---|---|---|---|");
        rows(table, "", &mut out);
    }
    let _ = writeln!(out, "\n## Values\n\n| kind | what to write |\n|---|---|");
    for format in literal::FORMATS {
        let _ = writeln!(out, "| {} | {} |", format.name, cell(format.form));
    }
    out
}

/// A row a key; the keys of inner tables with a dot.
fn rows(table: &Value, prefix: &str, out: &mut String) {
    let required: Vec<_> = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, property) in table["properties"].as_object().into_iter().flatten() {
        let name = format!("{prefix}{key}");
        if property["items"].get("properties").is_some() {
            let _ = writeln!(out, "| `{name}` | a table, or a list of them | – | {} |", cell(description(property)));
            rows(&property["items"], &format!("{name}."), out);
            continue;
        }
        if property.get("properties").is_some() {
            rows(property, &format!("{name}."), out);
            continue;
        }
        let default = match property.get("default") {
            _ if required.contains(&key.as_str()) => "**required**".to_owned(),
            None | Some(Value::Null) => "–".to_owned(),
            Some(Value::Array(items)) if items.is_empty() => "–".to_owned(),
            Some(default) => format!("`{}`", default.to_string().replace(",", ", ")),
        };
        let _ = writeln!(out, "| `{name}` | {} | {default} | {} |", cell(&kind(property)), cell(description(property)));
    }
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn kind(schema: &Value) -> String {
    let schema = schema["anyOf"].as_array().and_then(|choices| choices.first()).unwrap_or(schema);
    let words = choices(schema);
    let format = schema["format"].as_str().filter(|format| !format.starts_with("uint"));
    let types: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        many => {
            many.as_array().into_iter().flatten().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
    };
    match (types.as_slice(), format) {
        _ if !words.is_empty() => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        (["string", "integer"], Some(format)) => format.into(),
        (["string", "array"], Some(format)) => format!("{format}, or a list"),
        (["array"], _) => format!("list of {}", kind(&schema["items"])),
        (["integer"], _) => "number".into(),
        (["string"], Some(format)) => format.into(),
        (["string"], None) => "text".into(),
        (["boolean"], _) => "true, false".into(),
        _ => String::new(),
    }
}

fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
