//! Random manifests in random styles: what comes out says what it should, and a second run changes nothing. Whole manifests
//! with what comes of them are in `tests/inject`.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::additions::{Addition, What, put};
use super::cursor::Cursor;
use super::proof::{check, value, value_of_json};
use super::*;

fn settings(role: Role, native: bool) -> Settings {
    Settings {
        role,
        config_map: "orders".into(),
        image: "registry.example:5000/epochgate:1".into(),
        secrets: vec![("etcd-tls".into(), "etcd-client".into())],
        state_claim: None,
        admin_port: 9464,
        ports: vec![("postgres".into(), 5432)],
        native,
    }
}

fn inject_text(text: &str, settings: &Settings) -> Result<Outcome, Problem> {
    inject(&[Input { name: "f", text }], settings)
}

/// Whether it may stand without quotes, for every reader.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphabetic()) && !proof::is_special(text)
}

/// Writes a value in every style that YAML has for it, as the choices say.
struct Writer<'a> {
    choices: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    /// How far inner blocks stand to the right.
    step: usize,
    text: String,
    /// Whether the last value was a text on lines of its own.
    after_text: bool,
}

impl Writer<'_> {
    fn one_of(&mut self, count: u8) -> u8 {
        self.choices.next().map_or(0, |choice| choice % count)
    }

    fn scalar(&mut self, value: &Json) -> String {
        match value {
            Json::String(text) if self.one_of(2) == 0 && is_plain(text) => text.clone(),
            Json::String(text) if self.one_of(2) == 0 => format!("'{}'", text.replace('\'', "''")),
            value => value.to_string(),
        }
    }

    fn comment(&mut self, column: usize) {
        if self.one_of(6) == 0 {
            // Further to the right than the lines of a text it would be one of them.
            let deeper = if self.after_text { 0 } else { usize::from(self.one_of(3)) };
            self.text += &format!("{}# größer: [{{ 'odd' - \n", " ".repeat(column + deeper));
        }
        if self.one_of(12) == 0 {
            self.text += "\n";
        }
    }

    /// The rest of the line behind a colon or a dash, and the lines below.
    fn value(&mut self, value: &Json, column: usize, in_list: bool) {
        self.after_text = false;
        match value {
            Json::Object(entries) if !entries.is_empty() && self.one_of(6) > 0 => {
                if in_list {
                    self.text += " ";
                } else {
                    self.end_of_line();
                }
                for (at, (key, value)) in entries.iter().enumerate() {
                    if at > 0 || !in_list {
                        self.comment(column);
                        self.text += &" ".repeat(column);
                    }
                    let key = self.scalar(&Json::from(key.as_str()));
                    self.text += &format!("{key}:");
                    self.value(value, column + self.step, false);
                }
            }
            Json::Array(items) if !items.is_empty() && !in_list && self.one_of(6) > 0 => {
                let dash = column - if self.one_of(2) == 0 { self.step } else { 0 };
                self.end_of_line();
                for item in items {
                    self.comment(dash);
                    self.text += &format!("{}-", " ".repeat(dash));
                    self.value(item, dash + 2, true);
                }
            }
            Json::Object(_) | Json::Array(_) => {
                let written = match self.one_of(3) {
                    0 => value.to_string(),
                    1 => serde_json::to_string_pretty(value)
                        .unwrap()
                        .replace('\n', &format!("\n{}", " ".repeat(column + 1))),
                    _ => serde_json::to_string_pretty(value)
                        .unwrap()
                        .lines()
                        .map(str::trim)
                        .collect::<Vec<_>>()
                        .join(" "),
                };
                self.text += &format!(" {written}");
                self.end_of_line();
            }
            Json::Null if self.one_of(2) == 0 => self.end_of_line(),
            Json::String(text) if !in_list && self.one_of(4) == 0 && is_plain(text) => {
                let chomping = ["|-", ">-"][usize::from(self.one_of(2))];
                self.text += &format!(" {chomping}\n{}{text}\n", " ".repeat(column));
                if self.one_of(3) == 0 {
                    self.text += "\n";
                }
                self.after_text = true;
            }
            value => {
                let written = self.scalar(value);
                self.text += &format!(" {written}");
                self.end_of_line();
            }
        }
    }

    fn end_of_line(&mut self) {
        let choice = usize::from(self.one_of(4));
        self.text += ["\n", "\n", "  # here\n", " \n"][choice];
    }
}

fn write(manifest: &Json, choices: &[u8], step: usize, carriage: bool) -> String {
    let mut writer = Writer { choices: choices.iter().cycle(), step, text: String::new(), after_text: false };
    if writer.one_of(6) == 0 {
        writer.text = serde_json::to_string_pretty(manifest).unwrap();
    } else {
        writer.value(manifest, 0, false);
        // The root has nothing before it on its line.
        let begin = writer.text.find('\n').map_or(0, |at| at + 1);
        if writer.text[..begin].trim().is_empty() || writer.text.trim_start().starts_with('#') {
            writer.text.replace_range(..begin, "");
        } else {
            writer.text = writer.text.trim_start().to_owned();
        }
    }
    if carriage { writer.text.replace('\n', "\r\n") } else { writer.text }
}

fn word() -> impl Strategy<Value = Json> {
    prop_oneof!["[a-z]{1,6}", "[ -~é]{0,8}", Just("true".to_owned()), Just("1".to_owned())].prop_map(Json::from)
}

fn container(name: &'static str) -> impl Strategy<Value = Json> {
    (word(), prop::option::of(prop::collection::vec(word(), 0..3)), any::<bool>()).prop_map(
        move |(image, args, last)| {
            let mut container = Map::new();
            if last {
                container.insert("image".into(), image);
                container.insert("name".into(), name.into());
            } else {
                container.insert("name".into(), name.into());
                container.insert("image".into(), image);
            }
            args.map(|args| container.insert("args".into(), args.into()));
            Json::Object(container)
        },
    )
}

/// A list that may be missing, be nothing, or be empty.
fn list(items: impl Strategy<Value = Json>) -> impl Strategy<Value = Option<Json>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(Json::Null)),
        1 => Just(Some(json!([]))),
        4 => prop::collection::vec(items, 1..3).prop_map(|items| Some(Json::from(items))),
    ]
}

fn pod_spec() -> impl Strategy<Value = Json> {
    let volume = word().prop_map(|word| json!({"name": "cache", "emptyDir": {"medium": word}}));
    (
        prop::collection::vec(container("a"), 1..3),
        list(container("b")),
        list(volume),
        prop::option::of(prop_oneof![Just(json!(75)), Just(json!(10)), Just(Json::Null)]),
        word(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(containers, init, volumes, stop, policy, turn)| {
            let mut entries = vec![("containers", containers.into()), ("restartPolicy", policy)];
            entries.extend(init.map(|init| ("initContainers", init)));
            entries.extend(volumes.map(|volumes| ("volumes", volumes)));
            entries.extend(stop.map(|stop| ("terminationGracePeriodSeconds", stop)));
            let turn = turn.index(entries.len());
            entries.rotate_left(turn);
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
        })
}

/// A manifest, and the way to its pod spec.
fn manifest() -> impl Strategy<Value = (Json, &'static [&'static str])> {
    let kinds: Vec<(&str, &str, &'static [&'static str])> = vec![
        ("v1", "Pod", &["spec"]),
        ("apps/v1", "StatefulSet", &["spec", "template", "spec"]),
        ("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template", "spec"]),
    ];
    (prop::sample::select(kinds), pod_spec(), prop::collection::vec(word(), 0..3)).prop_map(
        |((version, kind, path), spec, words)| {
            let inner = path[1..].iter().rev().fold(spec, |inner, key| json!({"before": words.clone(), *key: inner}));
            (json!({"apiVersion": version, "kind": kind, "metadata": {"name": "orders"}, "spec": inner}), path)
        },
    )
}

/// What should come of it, said once more and in another way.
fn expected(mut manifest: Json, path: &[&str], settings: &Settings) -> Json {
    let spec = path.iter().fold(&mut manifest, |inner, key| &mut inner[*key]);
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let mut containers = list(&spec["containers"]);
    let mut init = list(&spec["initContainers"]);
    if settings.native {
        init.insert(0, sidecar::container(settings));
    } else {
        containers.push(sidecar::container(settings));
    }
    let mut volumes = list(&spec["volumes"]);
    volumes.extend(sidecar::volumes(settings, false));
    if !init.is_empty() {
        spec["initContainers"] = init.into();
    }
    spec["containers"] = containers.into();
    spec["volumes"] = volumes.into();
    if !spec.as_object().unwrap().contains_key("terminationGracePeriodSeconds") {
        spec["terminationGracePeriodSeconds"] = sidecar::pod_stop_seconds(settings, None).into();
    }
    manifest
}

/// The value that a text has, in JSON, where the order of keys is none.
fn as_json(text: &str) -> Json {
    fn of(value: &proof::Value) -> Json {
        match value {
            proof::Value::Null => Json::Null,
            proof::Value::Plain(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
            proof::Value::Text(text) => text.as_str().into(),
            proof::Value::List(items) => items.iter().map(of).collect(),
            proof::Value::Map(entries) => {
                let key = |key: &proof::Value| of(key).as_str().unwrap().to_owned();
                entries.iter().map(|(name, value)| (key(name), of(value))).collect::<Map<_, _>>().into()
            }
            other => panic!("{other:?}"),
        }
    }
    let documents = tree::parse(&Input { name: "f", text }).expect("it is YAML");
    assert_eq!(documents.len(), 1);
    of(&value(&documents[0].root))
}

/// Without what a manifest may have and say nothing with.
fn without_empty(mut manifest: Json, path: &[&str]) -> Json {
    let spec = path.iter().fold(&mut manifest, |inner, key| &mut inner[*key]);
    if let Json::Object(entries) = spec {
        entries.retain(|key, value| key != "initContainers" || value.as_array().is_some_and(|items| !items.is_empty()));
    }
    manifest
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn every_style_says_what_it_should(
        (manifest, path) in manifest(),
        choices in prop::collection::vec(any::<u8>(), 1..60),
        step in 1_usize..5,
        carriage in any::<bool>(),
        guard in any::<bool>(),
        native in any::<bool>(),
    ) {
        let text = write(&manifest, &choices, step, carriage);
        prop_assert_eq!(as_json(&text), manifest.clone(), "the test's own writer: {}", text);
        let settings = settings(if guard { Role::Guard } else { Role::Stamp }, native || manifest["kind"] == "CronJob");
        let outcome = match inject_text(&text, &settings) {
            Ok(outcome) => outcome,
            Err(problem) => panic!("{}: {}\n{text}", problem.at, problem.what),
        };
        prop_assert!(outcome.added());
        let is = without_empty(as_json(&outcome.yaml), path);
        prop_assert_eq!(is, without_empty(expected(manifest, path, &settings), path), "{}\n---\n{}", text, outcome.yaml);
        let again = inject_text(&outcome.yaml, &settings).expect("it can be read");
        prop_assert_eq!(&again.yaml, &outcome.yaml);
        prop_assert_eq!(&again.workloads[0].said, &Said::Present);
        if carriage && text.contains("\r\n") {
            prop_assert_eq!(outcome.yaml.matches('\n').count(), outcome.yaml.matches("\r\n").count());
        }
    }
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    image: x\n";

/// Whatever is different from what was asked for is found before it is printed.
#[test]
fn a_result_that_says_something_else_is_refused() {
    let input = Input { name: "f", text: POD };
    let documents = tree::parse(&input).unwrap();
    let is = value(&documents[0].root);
    assert_eq!(check(POD, std::slice::from_ref(&is)), Ok(()));
    let others = [
        POD.replace("image: x", "image: \"1\""),
        POD.replace("image: x", "image: x # and\n    extra: y"),
        POD.replace("name: a}", "name: &b a}"),
        POD.replace("name: a}", "name: !!str a}"),
        POD.replace("  - name: a\n", "  - name: a\n  - name: a\n"),
        format!("{POD}---\n{POD}"),
        format!("{POD} x: [\n"),
        String::new(),
    ];
    for other in others {
        let problem = check(&other, std::slice::from_ref(&is)).expect_err("it says something else");
        assert!(problem.what.contains("nothing is printed"), "{problem:?}");
    }
    let mut value = is.clone();
    let spec = Cursor::root(&documents[0]).step("spec").unwrap().unwrap();
    let addition = Addition { key: "volumes", what: What::Last(vec![json!({"name": "x"})]), before: false };
    put(&mut value, &spec, &[addition]).unwrap();
    assert_ne!(value, is);
    assert!(check(POD, &[value]).is_err(), "what was to be added is not there");
}

/// Every text that is added is one for every reader of YAML, also where it looks like something else.
#[test]
fn texts_stay_texts() {
    let odd = [
        "true",
        "No",
        "1",
        "1.5",
        "-",
        "- a",
        "a: b",
        "a:",
        ":a",
        "~",
        "null",
        "",
        " a",
        "a ",
        "a #b",
        "#",
        "0x1",
        ".5",
        "@a",
        "`a`",
        "*a",
        "&a",
        "!a",
        "%a",
        "a\nb",
        "é",
        "{a}",
        "[a]",
        "\"a\"",
        "'",
        "2001-01-01",
        "1:30",
        "=",
        "<<",
        "y",
        "?",
        "|",
        ">",
    ];
    for text in odd {
        let json = json!({"list": [text, {"key": text}], "key": text, text: 1});
        for indented in [true, false] {
            let lines = render::Block { indented }.entry(0, "root", &json).join("\n") + "\n";
            let documents = tree::parse(&Input { name: "f", text: &lines })
                .unwrap_or_else(|problem| panic!("{lines}: {problem:?}"));
            assert_eq!(value(&documents[0].root), value_of_json(&json!({"root": json})), "{lines}");
        }
    }
}

#[test]
fn the_deep_and_the_odd_are_refused_and_not_fallen_over() {
    for begin in ["[", "{", "- ", "? ", "a: {", "&a ", "!", "%", "[*", "{a: "] {
        let text = begin.repeat(100_000);
        assert!(inject_text(&text, &settings(Role::Stamp, true)).is_err(), "{begin}");
    }
    let other = inject_text("a: &x 1\n---\nb: *x\n", &settings(Role::Stamp, true));
    assert!(other.expect_err("an alias of another document").what.contains("another document"));
    let own =
        "apiVersion: v1\nkind: Pod\nmetadata: &m {<<: *m, name: a}\nspec: &s\n  <<: *s\n  containers: [{name: a}]\n";
    let said = inject_text(own, &settings(Role::Stamp, true)).expect("it is YAML").workloads;
    assert!(matches!(&said[0].said, Said::Skipped(why) if why.contains("alias")), "{said:?}");
}
