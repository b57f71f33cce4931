//! The resources: names, ranges, and what each has of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Resolver;
use crate::config::problem::{KeyPath, Place};
use crate::config::raw;
use crate::config::resolved::{Drain, FenceAction, OnTimeout, ResourceSettings};
use crate::fence::Resource;

/// The most resources that one process has.
const MOST: usize = 100_000;
/// Above so many, a range is one value of the metric label `resource`.
const OWN_LABELS: usize = 200;

/// Every resource, and where it was listed.
pub(in crate::config) struct Listed {
    pub(in crate::config) resources: BTreeMap<Resource, Arc<ResourceSettings>>,
    /// The key of the file (or the flag's text) that lists each.
    pub(in crate::config) keys: HashMap<Resource, Arc<str>>,
    /// Whether all that was written could be read: else a name that is missing may be one of those.
    pub(in crate::config) complete: bool,
}

/// One key with what it stands for.
struct Group<'a> {
    key: &'a str,
    names: Vec<Resource>,
}

pub(super) fn resolve(file: &raw::File, resolver: &mut Resolver<'_>) -> Listed {
    let path = KeyPath::root().key("resources");
    let by_flag: HashMap<&str, bool> = resolver
        .tree
        .get("resources")
        .map(|node| {
            node.entries().iter().map(|entry| (entry.key.as_str(), matches!(entry.place, Place::Flag(_)))).collect()
        })
        .unwrap_or_default();
    let is_flag = |key: &str| by_flag.get(key).copied().unwrap_or(false);

    let (mut groups, mut complete, mut count) = (Vec::new(), true, 0);
    for key in file.resources.keys() {
        match expand(key, MOST - count) {
            Ok(names) => {
                count += names.len();
                groups.push(Group { key, names });
            }
            Err(why) => {
                complete = false;
                let what = format!("resources: '{key}' {}", why.what);
                resolver.problem_of_key(&path.key(key), what, why.help);
            }
        }
    }
    // What a flag names may be part of a range of the file: then the file's settings are the ones.
    groups.sort_by_key(|group| is_flag(group.key));
    let mut listed = Listed { resources: BTreeMap::new(), keys: HashMap::with_capacity(count), complete };
    for group in &groups {
        let written = file.resources.get(group.key).and_then(Option::as_ref);
        let key: Arc<str> = group.key.into();
        let shared = (count > OWN_LABELS).then(|| Arc::new(settings(file, written, Arc::clone(&key))));
        for name in &group.names {
            if let Some(other) = listed.keys.get(name) {
                if !is_flag(group.key) {
                    let what = format!("resources: '{name}' is listed twice, by '{other}' and by '{}'", group.key);
                    resolver.problem_of_key(&path.key(group.key), what, "list each resource once");
                }
                continue;
            }
            listed.keys.insert(name.clone(), Arc::clone(&key));
            let own = || Arc::new(settings(file, written, name.as_str().into()));
            listed.resources.insert(name.clone(), shared.clone().unwrap_or_else(own));
        }
        check_action(written, &path.key(group.key), resolver);
    }
    listed
}

fn settings(file: &raw::File, written: Option<&raw::ResourceSettings>, label: Arc<str>) -> ResourceSettings {
    let own = written.and_then(|written| written.drain.as_ref());
    let general = &file.drain;
    let on_timeout = own.and_then(|drain| drain.on_timeout).unwrap_or(general.on_timeout);
    ResourceSettings {
        label,
        drain: Drain {
            timeout: own.and_then(|drain| drain.timeout.as_ref()).unwrap_or(&general.timeout).value,
            quarantine: own.and_then(|drain| drain.quarantine.as_ref()).unwrap_or(&general.quarantine).value,
            by_time: own.and_then(|drain| drain.by_time).unwrap_or(general.by_time),
            on_timeout: match on_timeout {
                raw::OnTimeout::Hold => OnTimeout::Hold,
                raw::OnTimeout::Open => OnTimeout::Open,
            },
        },
        hold_timeout: written.and_then(|w| w.hold.as_ref()).and_then(|hold| hold.timeout.as_ref()).map(|t| t.value),
        fence_action: written
            .and_then(|written| written.fence_action.as_ref())
            .and_then(|action| Some(FenceAction { command: action.command.clone()?, timeout: action.timeout.value })),
    }
}

fn check_action(written: Option<&raw::ResourceSettings>, path: &KeyPath, resolver: &mut Resolver<'_>) {
    let command =
        written.and_then(|written| written.fence_action.as_ref()).and_then(|action| action.command.as_deref());
    if command.and_then(<[String]>::first).is_some_and(String::is_empty) {
        let path = path.key("fence_action").key("command");
        resolver.problem(
            &path,
            format!("{path} names no program"),
            "write the program first: [\"/usr/local/bin/kill-jobs\"]",
        );
    }
}

/// Why a key names no resources.
struct NotListed {
    what: String,
    help: String,
}

/// The names that a key stands for, at most `room`.
fn expand(key: &str, room: usize) -> Result<Vec<Resource>, NotListed> {
    let no = |what: &str, help: &str| NotListed { what: what.to_owned(), help: help.to_owned() };
    let mut names = vec![String::new()];
    let mut rest = key;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((range, after)) = after.split_once('}') else {
            return Err(no("has a '{' without '}'", "write a range as {0..63}"));
        };
        let (first, last) = range_of(range)?;
        let size = usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1);
        if size.saturating_mul(names.len()) > room {
            return Err(no(
                "makes more than 100000 resources in all",
                "one process serves at most so many: split them up",
            ));
        }
        names =
            names.iter().flat_map(|name| (first..=last).map(move |number| format!("{name}{before}{number}"))).collect();
        rest = after;
    }
    if names.len() > room {
        return Err(no("makes more than 100000 resources in all", "one process serves at most so many: split them up"));
    }
    let whole = names.into_iter().map(|name| format!("{name}{rest}").parse::<Resource>());
    whole
        .collect::<Result<_, _>>()
        .map_err(|error| NotListed { what: "is no resource".into(), help: error.to_string() })
}

/// `0..63`.
fn range_of(text: &str) -> Result<(u64, u64), NotListed> {
    let no = |what: String, help: &str| NotListed { what, help: help.to_owned() };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let ends = text.split_once("..").and_then(|(first, last)| Some((number(first)?, number(last)?)));
    let Some((first, last)) = ends else {
        let help = "write a range as {0..63}: two whole numbers; both ends belong to it";
        return Err(no(format!("has '{{{text}}}', which is no range"), help));
    };
    if text != format!("{first}..{last}") {
        return Err(no(format!("has '{{{text}}}' with zeros in front"), "numbers are not padded: write {0..63}"));
    }
    if first > last {
        return Err(no(format!("has '{{{text}}}', which is empty"), "write the smaller number first"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(key: &str) -> Option<Vec<String>> {
        expand(key, MOST).ok().map(|names| names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ranges_are_written_out() {
        let of = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names("orders"), of(&["orders"]));
        assert_eq!(names("orders/{0..2}"), of(&["orders/0", "orders/1", "orders/2"]));
        assert_eq!(names("s{9..10}x/{1..1}"), of(&["s9x/1", "s10x/1"]));
        assert_eq!(names("a/{0..99999}").map(|names| names.len()), Some(100_000));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for key in [
            "",
            "Orders",
            "a/{0..100000}",
            "a/{0..999}/{0..999}",
            "a/{0..18446744073709551615}",
            "a/{00..63}",
            "a/{0..063}",
            "a/{3..1}",
            "a/{0..}",
            "a/{..3}",
            "a/{0-3}",
            "a/{x..y}",
            "a/{+0..3}",
            "a/{0..3",
            "a/0..3}",
            "{0..1}/",
            "a/{}",
        ] {
            assert_eq!(names(key), None, "{key}");
        }
        assert!(expand("b", 0).is_err());
    }
}
