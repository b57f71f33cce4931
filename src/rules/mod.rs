//! How requests are told apart: which are writes, and to which resource.
//!
//! A pure function of the rules and of a request's [`Facts`], used by both roles. It errs towards "write" and towards
//! refusing: a read that is taken for a write is answered with a refusal that says so, a write that is taken for a
//! read is not fenced.

mod path;
mod rule;
mod template;

use std::collections::HashMap;

pub use path::not_normal;
pub use rule::{BadRule, Rule, RuleText};
pub use template::Template;

use crate::fence::{Reason, Refusal, Resource};
use crate::protocol::{Facts, Kind};
use rule::Match;

/// The fields by which a client asks a target to take another method than the one sent, in every spelling that some
/// servers take for the same name: those that hand fields on as environment variables make `_` of `-`.
const OVERRIDES: [&str; 16] = [
    "x-http-method-override",
    "x-http-method_override",
    "x-http_method-override",
    "x-http_method_override",
    "x_http-method-override",
    "x_http-method_override",
    "x_http_method-override",
    "x_http_method_override",
    "x-http-method",
    "x-http_method",
    "x_http-method",
    "x_http_method",
    "x-method-override",
    "x-method_override",
    "x_method-override",
    "x_method_override",
];

/// All rules of one listener, with the resources that they can name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    rules: Vec<Stated>,
    /// Sorted.
    resources: Vec<Resource>,
    by_name: HashMap<Box<str>, usize>,
    fallback: Option<usize>,
    /// Whether a path pattern decides, of any request.
    path_decides: bool,
    /// Whether a gRPC pattern decides, of gRPC calls.
    grpc_decides: bool,
}

/// A rule, its resource looked up where that can be done once.
#[derive(Clone, Debug, PartialEq)]
struct Stated {
    rule: Rule,
    resource: Option<Named>,
}

#[derive(Clone, Debug, PartialEq)]
enum Named {
    Fixed(usize),
    /// By the rule's template.
    Filled,
    /// A name that is not listed.
    Unlisted,
}

/// What the rules say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Whether it may change something.
    pub kind: Kind,
    /// Its resource, as a place in [`Rules::resources`]. A write has one; a read may have none.
    pub resource: Option<usize>,
    /// Whether a stamping sidecar lets it through although the term is not armed yet.
    pub pass_unarmed: bool,
}

impl Rules {
    /// The rules in their order; `fallback` where none names a resource. What they can name is taken from `listed`:
    /// a resource that is not among them is unknown.
    pub fn new<'a>(rules: Vec<Rule>, fallback: Option<&Resource>, listed: impl Iterator<Item = &'a Resource>) -> Rules {
        let can_name = |resource: &Resource| {
            fallback == Some(resource) || rules.iter().filter_map(Rule::resource).any(|t| t.can_name(resource))
        };
        let mut resources: Vec<Resource> = listed.filter(|resource| can_name(resource)).cloned().collect();
        resources.sort_unstable();
        resources.dedup();
        let by_name: HashMap<Box<str>, usize> =
            resources.iter().enumerate().map(|(at, resource)| (resource.as_str().into(), at)).collect();
        let named = |template: &Template| match template.fixed() {
            Some(name) => by_name.get(name).copied().map_or(Named::Unlisted, Named::Fixed),
            None => Named::Filled,
        };
        Rules {
            path_decides: rules.iter().any(|rule| rule.path.is_some()),
            grpc_decides: rules.iter().any(|rule| rule.grpc.is_some()),
            fallback: fallback.and_then(|resource| by_name.get(resource.as_str()).copied()),
            rules: rules.into_iter().map(|rule| Stated { resource: rule.resource.as_ref().map(named), rule }).collect(),
            resources,
            by_name,
        }
    }

    /// Every resource that can be named, sorted.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// What they say of this request.
    ///
    /// # Errors
    /// [`Reason::PathNotNormal`] where a path decides and is not in normal form, [`Reason::ResourceUnknown`] where
    /// nothing names the resource of a write, or what names it names none that is listed.
    pub fn judge(&self, facts: &Facts<'_>) -> Result<Judged, Box<Refusal>> {
        if (self.path_decides || (self.grpc_decides && facts.grpc))
            && let Some(why) = not_normal(facts.path)
        {
            let detail = format!("the path decides what this request is, and {why}: send it in normal form");
            return Err(Box::new(Refusal::new(Reason::PathNotNormal, detail)));
        }
        let mut said = Said::default();
        for stated in &self.rules {
            let kind = said.kind.is_none().then(|| trusted_kind(&stated.rule, facts)).flatten();
            let resource = if said.resource.is_none() { stated.resource.as_ref() } else { None };
            let pass = stated.rule.pass_unarmed && !said.pass_unarmed;
            if kind.is_none() && resource.is_none() && !pass {
                continue;
            }
            let bound = match stated.rule.matches(facts) {
                Match::No => continue,
                Match::Yes(bound) => bound,
                Match::Ambiguous(name) => {
                    let detail = format!("the field {name} stands in the request more than once: send it once");
                    return Err(unknown(detail));
                }
            };
            said.kind = said.kind.or(kind);
            said.pass_unarmed |= pass;
            if let Some(named) = resource {
                said.resource = Some(self.look_up(named, &stated.rule, &bound)?);
            }
        }
        let kind = facts.kind.or(said.kind).unwrap_or_else(|| default_kind(facts));
        let resource = said.resource.or(self.fallback);
        if kind == Kind::Write && resource.is_none() {
            let detail = "no rule of this listener names a resource for this request, and it has no default one";
            return Err(unknown(detail));
        }
        Ok(Judged { kind, resource, pass_unarmed: said.pass_unarmed })
    }

    fn look_up(&self, named: &Named, rule: &Rule, bound: &rule::Bound<'_>) -> Result<usize, Box<Refusal>> {
        let unlisted = |name: &str| {
            let detail = format!("the request is for '{name}', which the configuration does not list as a resource");
            unknown(detail)
        };
        match (named, &rule.resource) {
            (Named::Fixed(at), _) => Ok(*at),
            (Named::Filled, Some(template)) => {
                let name = template.fill(bound);
                self.by_name.get(name.as_str()).copied().ok_or_else(|| unlisted(&name))
            }
            (Named::Filled | Named::Unlisted, template) => {
                Err(unlisted(template.as_ref().map_or("", Template::as_str)))
            }
        }
    }
}

fn unknown(detail: impl Into<std::borrow::Cow<'static, str>>) -> Box<Refusal> {
    Box::new(Refusal::new(Reason::ResourceUnknown, detail))
}

#[derive(Default)]
struct Said {
    kind: Option<Kind>,
    resource: Option<usize>,
    pass_unarmed: bool,
}

/// The kind that a rule states, where it may be believed of this request: only a gRPC pattern makes a read of a gRPC
/// call, and a rule about the method makes none where the method sent is not the one meant.
fn trusted_kind(rule: &Rule, facts: &Facts<'_>) -> Option<Kind> {
    let doubtful = || (facts.grpc && rule.grpc.is_none()) || (rule.has_methods() && is_overridden(facts));
    rule.kind.filter(|kind| *kind == Kind::Write || !doubtful())
}

fn default_kind(facts: &Facts<'_>) -> Kind {
    let reads = Kind::of_method(facts.method) == Kind::Read;
    if reads && !facts.upgrade && !facts.grpc && !is_overridden(facts) { Kind::Read } else { Kind::Write }
}

/// Whether the method sent may not be the one meant. To look for so many names costs something: only what would be a
/// read is asked.
fn is_overridden(facts: &Facts<'_>) -> bool {
    OVERRIDES.iter().any(|name| facts.fields.has(name))
}

#[cfg(test)]
mod tests;
