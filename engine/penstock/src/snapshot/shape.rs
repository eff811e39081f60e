//! Does the text have the shape of a document? Its tree is walked along the JSON Schema: keys, types, formats.
//!
//! What does not fit is reported with its place and left out, so that the rest still becomes a document, whose meaning can be
//! looked at in the same run.

use super::{
    literal,
    report::{Code, Problem, nearest},
    schema::{Document, json_schema},
    text::{Entry, Kind, Node},
};
use serde_json::{Map, Value};

/// The document that the tree stands for, without what does not fit.
pub(super) fn shape(tree: &Node, problems: &mut Vec<Problem>) -> Document {
    let schema = json_schema();
    let fitting = Shape { problems }.value(tree, &schema, "").unwrap_or_default();
    serde_json::from_value(fitting).unwrap_or_else(|mismatch| {
        // The schema and the types come from one source; should they disagree, that is said and nothing is run.
        problems.push(Problem::error(Code::WrongType, format!("{mismatch}")));
        Document::default()
    })
}

struct Shape<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Shape<'_> {
    /// The value, if it fits the schema; `name` is what messages call it.
    fn value(&mut self, node: &Node, schema: &Value, name: &str) -> Option<Value> {
        if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
            let choice = choices.iter().find(|choice| choice["type"] != "null")?;
            return self.value(node, choice, name);
        }
        match &node.kind {
            Kind::Table(_) if accepts(schema, "object") => self.table(node, schema, name),
            // One table where a list of tables may stand. A section says by its brackets which of the two it is.
            Kind::Table(_) if schema["items"]["type"] == "object" && !name.starts_with("[[") => {
                let only = self.table(node, &schema["items"], name).unwrap_or_else(|| Map::new().into());
                Some(vec![only].into())
            }
            Kind::Array(items) if accepts(schema, "array") => {
                let items = items.iter().map(|item| {
                    // What does not fit keeps its place, so that indexes still lead to the right line.
                    let fitting = self.value(item, &schema["items"], name);
                    fitting.or_else(|| (schema["items"]["type"] == "object").then(|| Map::new().into()))
                });
                Some(items.collect::<Vec<_>>().into_iter().flatten().collect())
            }
            Kind::Text(text) if accepts(schema, "string") => self.text(node, text, schema, name),
            Kind::Integer(number) if accepts(schema, "integer") => self.integer(node, *number, schema, name),
            Kind::Boolean(boolean) if accepts(schema, "boolean") => Some((*boolean).into()),
            _ => {
                let found = node.type_name();
                let message = format!("{} is {found}, and must be {}", quoted(name), wanted(schema));
                self.problems.push(
                    Problem::error(Code::WrongType, message).at(node.span.clone()).advice(example(node, schema, name)),
                );
                None
            }
        }
    }

    fn table(&mut self, node: &Node, schema: &Value, name: &str) -> Option<Value> {
        let Kind::Table(entries) = &node.kind else {
            return None;
        };
        if schema["additionalProperties"].is_object() {
            return Some(self.named_tables(entries, &schema["additionalProperties"], name));
        }
        let properties = schema["properties"].as_object()?;
        let place = if name.is_empty() { "the file".to_owned() } else { name.to_owned() };
        let mut fitting = Map::new();
        for entry in entries {
            let Some(property) = properties.get(&entry.key) else {
                let known = properties.keys().map(String::as_str);
                let advice = match nearest(&entry.key, known.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it may have: {}", known.collect::<Vec<_>>().join(", ")),
                };
                let message = format!("unknown key `{}` in {place}", entry.key);
                self.problems.push(Problem::error(Code::UnknownKey, message).at(entry.span.clone()).advice(advice));
                continue;
            };
            let inner = inner_name(name, &entry.key, property);
            if let Some(value) = self.value(&entry.value, property, &inner) {
                fitting.insert(entry.key.clone(), value);
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !entries.iter().any(|entry| entry.key == required) {
                let advice = match properties.get(required) {
                    Some(property) if name.is_empty() => {
                        format!("write [[{required}]]: {}", first_sentence(property))
                    }
                    Some(property) => format!("`{required}`: {}", first_sentence(property)),
                    None => String::new(),
                };
                let message = format!("`{required}` is missing in {place}");
                self.problems.push(Problem::error(Code::MissingKey, message).at(node.span.clone()).advice(advice));
            }
        }
        Some(fitting.into())
    }

    /// Tables that the operator names.
    fn named_tables(&mut self, entries: &[Entry], schema: &Value, name: &str) -> Value {
        let section = name.trim_start_matches('[').trim_end_matches(']');
        let mut tables = Map::new();
        for entry in entries {
            let inner = format!("[{section}.{}]", entry.key);
            // What does not fit keeps its name, which others refer to.
            let table = self.value(&entry.value, schema, &inner).unwrap_or_else(|| Map::new().into());
            tables.insert(entry.key.clone(), table);
        }
        tables.into()
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, name: &str) -> Option<Value> {
        let choices = choices(schema);
        if !choices.is_empty() && !choices.contains(&text) {
            let advice = match nearest(text, choices.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write one of: {}", choices.join(", ")),
            };
            let message = format!("`{text}` is nothing that {} can be", quoted(name));
            self.problems.push(Problem::error(Code::BadValue, message).at(node.span.clone()).advice(advice));
            return None;
        }
        if let Some(format) = schema["format"].as_str()
            && let Err(wrong) = literal::check(format, text)
        {
            let message = format!("{}: `{text}` {}", quoted(name), wrong.why);
            self.problems.push(Problem::error(Code::BadValue, message).at(node.span.clone()).advice(wrong.instead));
            return None;
        }
        Some(text.into())
    }

    fn integer(&mut self, node: &Node, number: i64, schema: &Value, name: &str) -> Option<Value> {
        let max = schema["maximum"].as_i64().unwrap_or(match schema["format"].as_str() {
            Some("uint8") => u8::MAX.into(),
            Some("uint16") => u16::MAX.into(),
            Some("uint32") => u32::MAX.into(),
            _ => i64::MAX,
        });
        let min = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        if (min..=max).contains(&number) {
            return Some(number.into());
        }
        let message = format!("{} cannot be {number}", quoted(name));
        let advice = format!("write a number from {min} to {max}");
        self.problems.push(Problem::error(Code::BadValue, message).at(node.span.clone()).advice(advice));
        None
    }
}

/// How messages call a key: `[[listen]]`, `[engine]`, `addr`, `timeout.head`.
fn inner_name(outer: &str, key: &str, schema: &Value) -> String {
    match (outer, accepts(schema, "array") && !accepts(schema, "string"), accepts(schema, "object")) {
        ("", true, _) => format!("[[{key}]]"),
        ("", _, true) => format!("[{key}]"),
        (outer, ..) if outer.starts_with('[') || outer.is_empty() => key.to_owned(),
        (outer, ..) => format!("{outer}.{key}"),
    }
}

fn quoted(name: &str) -> String {
    if name.starts_with('[') { name.to_owned() } else { format!("`{name}`") }
}

fn accepts(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(only) => only == kind,
        Value::Array(kinds) => kinds.iter().any(|known| known == kind),
        _ => kind == "string" && !choices(schema).is_empty(),
    }
}

/// The texts that an enumeration allows. Where a variant has a description of its own, each stands in a schema of its own.
pub(super) fn choices(schema: &Value) -> Vec<&str> {
    let described = schema["oneOf"].as_array().into_iter().flatten();
    std::iter::once(schema).chain(described).flat_map(texts).collect()
}

fn texts(schema: &Value) -> impl Iterator<Item = &str> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    listed.chain([&schema["const"]]).filter_map(Value::as_str)
}

fn wanted(schema: &Value) -> &'static str {
    match (accepts(schema, "object"), accepts(schema, "array"), accepts(schema, "string"), accepts(schema, "integer")) {
        (true, ..) => "a table",
        (_, true, true, _) => "text or a list of texts",
        (_, true, ..) => "a list",
        (.., true, _) => "text",
        (.., true) => "a number",
        _ => "true or false",
    }
}

/// How it would be right, as far as that can be guessed.
fn example(node: &Node, schema: &Value, name: &str) -> String {
    match &node.kind {
        Kind::Integer(number) if schema["format"] == "time" => {
            format!("write \"{number}s\" for seconds")
        }
        Kind::Integer(number) if schema["format"] == "percent" => format!("write \"{number}%\""),
        Kind::Integer(number) if accepts(schema, "string") => format!("write \"{number}\""),
        Kind::Text(text) if accepts(schema, "integer") && text.parse::<i64>().is_ok() => {
            format!("write {text}")
        }
        Kind::Text(text) if accepts(schema, "array") => format!("write [\"{text}\"]"),
        Kind::Table(_) if name.starts_with("[[") => {
            format!("write {name} above its keys, with two brackets")
        }
        Kind::Array(_) if name.starts_with('[') => format!("write {name}, with one bracket"),
        _ => String::new(),
    }
}

fn first_sentence(schema: &Value) -> &str {
    let description = schema["description"].as_str().unwrap_or_default();
    let end = description.find(". ").unwrap_or(description.len());
    description[..end].trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;

    #[derive(JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    #[allow(dead_code, reason = "its schema is what is looked at")]
    enum Described {
        /// The first.
        One,
        /// The second.
        TheOther,
        Third,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "its schema is what is looked at")]
    struct Doc {
        choice: Described,
        perhaps: Option<Described>,
    }

    /// What becomes of a text as the value of a key, and what is said of it.
    fn read(key: &str, text: &str) -> (Option<Value>, Vec<String>) {
        let settings =
            schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<Doc>().to_value();
        let node = Node { kind: Kind::Text(text.into()), span: 0..1 };
        let mut problems = Vec::new();
        let value = Shape { problems: &mut problems }.value(&node, &schema["properties"][key], key);
        (value, problems.into_iter().map(|problem| format!("{}: {}", problem.message, problem.advice)).collect())
    }

    #[test]
    fn variants_may_have_descriptions() {
        for key in ["choice", "perhaps"] {
            for text in ["one", "the-other", "third"] {
                assert_eq!(read(key, text), (Some(text.into()), Vec::new()), "{key}");
            }
            let wrong = format!("`for` is nothing that `{key}` can be: write one of: third, one, the-other");
            assert!(matches!(read(key, "for"), (None, said) if said == [wrong.clone()]), "{:?}", read(key, "for"));
        }
    }
}
