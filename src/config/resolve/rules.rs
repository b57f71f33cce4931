//! The rules of one listener.

use super::Resolver;
use super::resources::Listed;
use crate::config::problem::{KeyPath, suggestion};
use crate::config::raw;
use crate::fence::Resource;
use crate::protocol::Kind;
use crate::rules::{Rule, RuleText, Rules};

/// Reads the rules; reports what they name and nobody listed.
pub(super) fn resolve(written: &raw::Listener, path: &KeyPath, listed: &Listed, resolver: &mut Resolver<'_>) -> Rules {
    let fallback = written.resource.as_ref().map(|resource| &resource.value);
    if let Some(resource) = fallback {
        check_listed(resource.as_str(), &path.key("resource"), listed, resolver);
    }
    let mut rules = Vec::with_capacity(written.rules.len());
    for (at, rule) in written.rules.iter().enumerate() {
        let path = path.key("rules").index(at);
        let Some(rule) = rule.as_ref().and_then(|rule| read(rule, &path, resolver)) else { continue };
        if let Some(template) = rule.resource() {
            let path = path.key("resource");
            match template.fixed() {
                Some(name) => check_listed(name, &path, listed, resolver),
                None if listed.complete && !listed.resources.keys().any(|resource| template.can_name(resource)) => {
                    let what = format!("{path}: no listed resource is of the form '{}'", template.as_str());
                    resolver.problem(
                        &path,
                        what,
                        "list them under resources, for instance as a range: \"orders/{0..63}\"",
                    );
                }
                None => {}
            }
        }
        rules.push(rule);
    }
    Rules::new(rules, fallback, listed.resources.keys())
}

fn read(rule: &raw::Rule, path: &KeyPath, resolver: &mut Resolver<'_>) -> Option<Rule> {
    let headers = rule.header.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let text = RuleText {
        methods: rule.method.as_deref().unwrap_or_default(),
        path: rule.path.as_deref(),
        headers,
        grpc: rule.grpc.as_deref(),
        kind: rule.kind.map(|kind| match kind {
            raw::KindWord::Read => Kind::Read,
            raw::KindWord::Write => Kind::Write,
        }),
        resource: rule.resource.as_deref(),
        pass_unarmed: rule.unarmed.is_some(),
    };
    // What was bad in its form has been reported and is not there any more: the rest may then look worse than it is.
    let whole = !resolver.problems.mentions(path);
    match Rule::read(&text) {
        Ok(rule) => Some(rule),
        Err(bad) => {
            for bad in bad.into_iter().filter(|_| whole) {
                let path = if bad.key.is_empty() { path.clone() } else { path.key(bad.key) };
                resolver.problem(&path, format!("{path}: {}", bad.what), bad.help);
            }
            None
        }
    }
}

/// Reports a resource that is named and not listed.
pub(super) fn check_listed(name: &str, path: &KeyPath, listed: &Listed, resolver: &mut Resolver<'_>) {
    let known = name.parse::<Resource>().is_ok_and(|name| listed.resources.contains_key(&name));
    if known || !listed.complete {
        return;
    }
    let near = suggestion(name, listed.resources.keys().map(Resource::as_str));
    let what = format!("{path}: '{name}' is not listed under resources{near}");
    resolver.problem(path, what, format!("add it there: `{name}: {{}}`"));
}
