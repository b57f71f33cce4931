//! The resource that a rule names: a text with variables.

use super::path::is_value;
use super::rule::{BadRule, Bound, Variables};
use crate::fence::Resource;

/// A resource with variables in it, such as `orders/{shard}`. A segment has at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    before: Box<str>,
    variable: Option<usize>,
    after: Box<str>,
}

impl Template {
    pub(super) fn read(text: &str, variables: &Variables) -> Result<Template, BadRule> {
        let segments = text.split('/').map(|segment| Segment::read(segment, variables)).collect::<Result<_, _>>()?;
        // Whatever stands for the variables, the rest must be what a resource is made of.
        let filled: String = without_variables(text);
        if filled.parse::<Resource>().is_err() {
            let help = "write orders, or orders/{shard} with a variable of path or header";
            return Err(BadRule::new("resource", format!("'{text}' is no resource"), help));
        }
        Ok(Template { text: text.into(), segments })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name, where it has no variables.
    pub fn fixed(&self) -> Option<&str> {
        self.segments.iter().all(|segment| segment.variable.is_none()).then_some(&*self.text)
    }

    /// Whether some request could make it name `resource`.
    pub fn can_name(&self, resource: &Resource) -> bool {
        let names = resource.as_str().split('/');
        names.clone().count() == self.segments.len()
            && names.zip(&self.segments).all(|(name, segment)| segment.can_be(name))
    }

    /// The name that these values make.
    pub(super) fn fill(&self, bound: &Bound<'_>) -> String {
        let mut name = String::with_capacity(self.text.len() + 16);
        for (at, segment) in self.segments.iter().enumerate() {
            if at > 0 {
                name.push('/');
            }
            name.push_str(&segment.before);
            if let Some(variable) = segment.variable {
                name.push_str(bound.value(variable));
            }
            name.push_str(&segment.after);
        }
        name
    }
}

impl Segment {
    fn read(text: &str, variables: &Variables) -> Result<Segment, BadRule> {
        let Some((before, rest)) = text.split_once('{') else {
            return Ok(Segment { before: text.into(), variable: None, after: "".into() });
        };
        let help = "close each variable with '}', and write at most one between two '/'";
        let Some((name, after)) = rest.split_once('}') else {
            return Err(BadRule::new("resource", format!("'{text}' has a variable without end"), help));
        };
        if after.contains(['{', '}']) {
            return Err(BadRule::new("resource", format!("'{text}' has more than one variable"), help));
        }
        let Some(variable) = variables.number(name) else {
            let help = format!("bind it in path or header: path: \"/x/{{{name}}}/**\"");
            return Err(BadRule::new("resource", format!("nothing binds '{{{name}}}'"), help));
        };
        Ok(Segment { before: before.into(), variable: Some(variable), after: after.into() })
    }

    fn can_be(&self, name: &str) -> bool {
        if self.variable.is_none() {
            return *name == *self.before;
        }
        name.strip_prefix(&*self.before).and_then(|name| name.strip_suffix(&*self.after)).is_some_and(is_value)
    }
}

fn without_variables(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        filled.push('0');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn template(text: &str) -> Result<Template, BadRule> {
        let mut variables = Variables::default();
        for name in ["{shard}", "{region}"] {
            variables.whole(name, "path").expect("a variable");
        }
        Template::read(text, &variables)
    }

    #[test]
    fn a_template_names_what_its_values_make() {
        let both = template("eu-{region}.x/{shard}").expect("a template");
        let mut bound = Bound::default();
        bound.bind(0, Cow::Borrowed("7"));
        bound.bind(1, Cow::Borrowed("west"));
        assert_eq!(both.fill(&bound), "eu-west.x/7");
        assert_eq!(both.fixed(), None);
        assert_eq!(template("orders/7").expect("a name").fixed(), Some("orders/7"));
    }

    #[test]
    fn it_knows_which_resources_it_can_name() {
        let orders = template("orders/{shard}").expect("a template");
        for (name, can) in
            [("orders/7", true), ("orders/a.b", true), ("orders", false), ("orders/7/8", false), ("x/7", false)]
        {
            assert_eq!(orders.can_name(&name.parse().expect(name)), can, "{name}");
        }
        let inner = template("a-{shard}-b").expect("a template");
        for (name, can) in [("a-1-b", true), ("a--b", false), ("a-b", false), ("a-1-c", false)] {
            assert_eq!(inner.can_name(&name.parse().expect(name)), can, "{name}");
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        for text in [
            "",
            "Orders",
            "orders/{nothing}",
            "orders/{shard",
            "orders/shard}",
            "{shard}{region}",
            "/{shard}",
            "a/{}",
            "-{shard}",
        ] {
            assert!(template(text).is_err(), "{text}");
        }
    }
}
