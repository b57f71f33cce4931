//! YAML as Helm writes it, as JSON values.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Every document that is not empty.
#[track_caller]
pub fn documents(text: &str) -> Vec<Value> {
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut documents = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, place) = event.unwrap_or_else(|error| panic!("{error} in:\n{text}"));
        let done = match event {
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) => {
                open.push((Value::Array(Vec::new()), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Value::Object(Map::new()), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().expect("what ends has begun").0,
            Event::Alias(..) => panic!("line {}: Helm writes no aliases", place.start.line()),
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(done),
            Some((Value::Array(list), _)) => list.push(done),
            Some((Value::Object(map), key)) => match key.take() {
                None => *key = Some(done.as_str().map_or_else(|| done.to_string(), str::to_owned)),
                Some(key) => {
                    let line = place.start.line();
                    assert!(map.insert(key.clone(), done).is_none(), "line {line}: {key} stands twice in:\n{text}");
                }
            },
            Some(_) => unreachable!("only lists and mappings are opened"),
        }
    }
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The only document.
#[track_caller]
pub fn document(text: &str) -> Value {
    let mut all = documents(text);
    assert_eq!(all.len(), 1, "one document is expected in:\n{text}");
    all.remove(0)
}

/// What Kubernetes takes a scalar for.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "null" | "~" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => {
            let number = text.parse::<i64>().map(Value::from);
            let number = number.or_else(|_| text.parse::<f64>().map_err(|_| ()).map(Value::from));
            let numeric = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            number.ok().filter(|_| numeric).unwrap_or_else(|| Value::String(text.to_owned()))
        }
    }
}
