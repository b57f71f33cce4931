//! One rule: what a request must have, and what is then said of it.

use std::borrow::Cow;

use super::path::{PathPattern, is_value};
use super::template::Template;
use crate::protocol::{Facts, Kind};

/// Why a rule means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadRule {
    /// Which of its keys: `path`, `header`, `grpc`, `resource`, `method`; empty for the rule as a whole.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: String,
}

impl BadRule {
    pub(super) fn new(key: &'static str, what: impl Into<String>, help: impl Into<String>) -> BadRule {
        BadRule { key, what: what.into(), help: help.into() }
    }
}

/// No rule needs more variables.
const MOST_VARIABLES: usize = 8;

/// The variables of one rule, numbered in the order in which its patterns bind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables(Vec<Box<str>>);

impl Variables {
    /// The variable that `text` is as a whole: `{name}`. `None` for plain text.
    pub(super) fn whole(&mut self, text: &str, key: &'static str) -> Result<Option<usize>, BadRule> {
        let help = "write a whole part as {name}, the name of a-z, 0-9 and '_'";
        let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            if text.contains(['{', '}']) {
                return Err(BadRule::new(key, format!("'{text}' mixes plain text with a variable"), help));
            }
            return Ok(None);
        };
        if !is_variable(name) {
            return Err(BadRule::new(key, format!("'{text}' is no variable"), help));
        }
        if self.number(name).is_some() {
            return Err(BadRule::new(key, format!("'{{{name}}}' is bound twice"), "give each its own name"));
        }
        if self.0.len() >= MOST_VARIABLES {
            return Err(BadRule::new(key, format!("more than {MOST_VARIABLES} variables"), "leave some out"));
        }
        self.0.push(name.into());
        Ok(Some(self.0.len() - 1))
    }

    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| **known == *name)
    }
}

/// Whether a text can be a variable's name.
pub(super) fn is_variable(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    matches!(name.len(), 1..=32) && name.bytes().all(plain)
}

/// What the variables of a rule found in one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bound<'a>([Option<Cow<'a, str>>; MOST_VARIABLES]);

impl<'a> Bound<'a> {
    pub(super) fn bind(&mut self, variable: usize, value: Cow<'a, str>) {
        if let Some(place) = self.0.get_mut(variable) {
            *place = Some(value);
        }
    }

    pub(super) fn value(&self, variable: usize) -> &str {
        self.0.get(variable).and_then(Option::as_deref).unwrap_or("")
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(Option::as_deref)
    }
}

/// A rule as it is written; all that is there must hold, and at least one thing must be said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleText<'a> {
    /// One of these methods.
    pub methods: &'a [String],
    /// This path.
    pub path: Option<&'a str>,
    /// These fields.
    pub headers: Vec<(&'a str, &'a str)>,
    /// This gRPC method.
    pub grpc: Option<&'a str>,
    /// Then this kind.
    pub kind: Option<Kind>,
    /// Then this resource.
    pub resource: Option<&'a str>,
    /// Then it passes although the term is not armed.
    pub pass_unarmed: bool,
}

/// One rule of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    methods: Vec<Box<str>>,
    pub(super) path: Option<PathPattern>,
    headers: Vec<(Box<str>, Value)>,
    pub(super) grpc: Option<GrpcPattern>,
    pub(super) kind: Option<Kind>,
    pub(super) resource: Option<Template>,
    pub(super) pass_unarmed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Literal(Box<str>),
    Variable(usize),
}

/// Whether a rule matches a request.
pub(super) enum Match<'a> {
    No,
    Yes(Bound<'a>),
    /// This field stands in the request more than once, with different values.
    Ambiguous(&'a str),
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(text: &RuleText<'_>) -> Result<Rule, Vec<BadRule>> {
        let mut bad = Vec::new();
        let mut variables = Variables::default();
        if text.kind.is_none() && text.resource.is_none() && !text.pass_unarmed {
            bad.push(BadRule::new("", "the rule says nothing", "add kind, resource or unarmed"));
        }
        if text.grpc.is_some() && text.path.is_some() {
            bad.push(BadRule::new(
                "grpc",
                "a rule has both grpc and path",
                "a gRPC pattern is a path already: keep one",
            ));
        }
        let mut note = |error: BadRule| bad.push(error);
        let methods = text.methods.iter().filter_map(|m| method(m).map_err(&mut note).ok()).collect();
        let path = text.path.and_then(|p| PathPattern::read(p, &mut variables).map_err(&mut note).ok());
        let mut headers = Vec::new();
        for (name, value) in &text.headers {
            match header(name, value, &mut variables) {
                Ok(header) => headers.push(header),
                Err(error) => note(error),
            }
        }
        let grpc = text.grpc.and_then(|g| GrpcPattern::read(g).map_err(&mut note).ok());
        let resource = text.resource.and_then(|r| Template::read(r, &variables).map_err(&mut note).ok());
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Rule { methods, path, headers, grpc, kind: text.kind, resource, pass_unarmed: text.pass_unarmed })
    }

    /// Which resources it can name.
    pub fn resource(&self) -> Option<&Template> {
        self.resource.as_ref()
    }

    pub(super) fn has_methods(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(super) fn matches<'a>(&'a self, facts: &Facts<'a>) -> Match<'a> {
        if self.has_methods() && !self.methods.iter().any(|method| **method == *facts.method) {
            return Match::No;
        }
        if self.grpc.as_ref().is_some_and(|grpc| !(facts.grpc && facts.method == "POST" && grpc.matches(facts.path))) {
            return Match::No;
        }
        let mut bound = Bound::default();
        if self.path.as_ref().is_some_and(|pattern| !pattern.matches(facts.path, &mut bound)) {
            return Match::No;
        }
        for (name, wanted) in &self.headers {
            match sole_value(facts, name, wanted) {
                Found::Other => return Match::No,
                Found::Several => return Match::Ambiguous(name),
                Found::Literal => {}
                Found::Variable(variable, value) => bound.bind(variable, Cow::Owned(value)),
            }
        }
        Match::Yes(bound)
    }
}

#[derive(PartialEq, Eq)]
enum Found {
    Other,
    Several,
    Literal,
    Variable(usize, String),
}

/// What the field says. A field that stands twice and says the same says it once.
fn sole_value(facts: &Facts<'_>, name: &str, wanted: &Value) -> Found {
    let mut found: Option<Found> = None;
    facts.fields.each(name, &mut |value| {
        let this = match (wanted, std::str::from_utf8(value)) {
            (Value::Literal(literal), Ok(value)) if **literal == *value => Found::Literal,
            (Value::Variable(variable), Ok(value)) if is_value(value) => Found::Variable(*variable, value.to_owned()),
            _ => Found::Other,
        };
        found = match found.take() {
            Some(before) if before != this => Some(Found::Several),
            _ => Some(this),
        };
    });
    found.unwrap_or(Found::Other)
}

fn method(text: &str) -> Result<Box<str>, BadRule> {
    const KNOWN: &[&str] = &["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "CONNECT"];
    let capitals = text.to_ascii_uppercase();
    if KNOWN.contains(&capitals.as_str()) && capitals != text {
        let help = format!("methods are told apart by case: write {capitals}");
        return Err(BadRule::new("method", format!("'{text}' is not what clients send"), help));
    }
    if http::Method::from_bytes(text.as_bytes()).is_err() {
        return Err(BadRule::new("method", format!("'{text}' is no method"), "write a method such as POST"));
    }
    Ok(text.into())
}

fn header(name: &str, value: &str, variables: &mut Variables) -> Result<(Box<str>, Value), BadRule> {
    let Ok(field) = http::HeaderName::from_bytes(name.as_bytes()) else {
        return Err(BadRule::new("header", format!("'{name}' is no field name"), "write a name such as x-shard"));
    };
    if http::HeaderValue::from_str(value).is_err() || value.trim() != value || value.is_empty() {
        return Err(BadRule::new("header", format!("no field has the value '{value}'"), "write a value or \"{name}\""));
    }
    let value = match variables.whole(value, "header")? {
        Some(variable) => Value::Variable(variable),
        None => Value::Literal(value.into()),
    };
    Ok((field.as_str().into(), value))
}

/// A pattern of gRPC methods: `pkg.Service/Get*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrpcPattern {
    service: Box<str>,
    method: Box<str>,
    /// Whether the method's name may go on.
    open: bool,
}

impl GrpcPattern {
    fn read(text: &str) -> Result<GrpcPattern, BadRule> {
        let help = "write pkg.Service/Method, or pkg.Service/Get* for every method that begins so";
        let bad = || Err(BadRule::new("grpc", format!("'{text}' is no gRPC method"), help));
        let Some((service, method)) = text.split_once('/') else { return bad() };
        let (method, open) = method.strip_suffix('*').map_or((method, false), |method| (method, true));
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
        if service.is_empty() || (method.is_empty() && !open) || !plain(service) || !plain(method) {
            return bad();
        }
        Ok(GrpcPattern { service: service.into(), method: method.into(), open })
    }

    fn matches(&self, path: &str) -> bool {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return false;
        };
        // No gRPC method has another '/': what looks like one is for something else.
        let whole = method.len() == self.method.len();
        *service == *self.service
            && !method.is_empty()
            && !method.contains('/')
            && method.starts_with(&*self.method)
            && (self.open || whole)
    }
}
