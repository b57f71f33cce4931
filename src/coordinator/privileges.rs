//! What a process needs to be let do in etcd, beside what its user is let do. Pure: `epochgate check` asks and prints.
//!
//! Everybody reads the whole prefix; what is compared finely is who may write what. A grant is too wide where it reaches
//! a key that this configuration never writes, and too narrow where a key that it writes is in none.

use std::collections::{BTreeMap, BTreeSet};

use super::keys;
use super::store::Keys;
use crate::config::resolved::{Config, Role};
use crate::fence::Resource;

/// Keys as etcd grants them: from one on, up to another that is not among them, or without an end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    from: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// What etcd says of a permission: no end is the one key, an end of one zero byte is every key from there on.
    pub fn granted(key: &[u8], range_end: &[u8]) -> KeyRange {
        // The empty key does not exist; etcd writes the zero byte for "from the first key on".
        let from = if key == b"\0" { Vec::new() } else { key.to_vec() };
        match range_end {
            b"" => KeyRange::one(key),
            b"\0" => KeyRange { from, end: None },
            end => KeyRange { from, end: Some(end.to_vec()) },
        }
    }

    /// Keys of ours, under the configured prefix.
    pub fn of(prefix: &str, keys: &Keys) -> KeyRange {
        match keys {
            Keys::One(key) => KeyRange::one(format!("{prefix}{key}").as_bytes()),
            Keys::Under(under) => KeyRange::under(format!("{prefix}{under}").as_bytes()),
        }
    }

    fn one(key: &[u8]) -> KeyRange {
        // The next key after this one.
        let end = [key, b"\0"].concat();
        KeyRange { from: key.to_vec(), end: Some(end) }
    }

    fn under(prefix: &[u8]) -> KeyRange {
        let kept = prefix.iter().rposition(|byte| *byte < u8::MAX).map(|last| &prefix[..=last]);
        let end = kept.and_then(<[u8]>::split_last).map(|(last, before)| [before, &[last + 1]].concat());
        KeyRange { from: prefix.to_vec(), end }
    }

    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.from)
    }

    fn meets(&self, other: &KeyRange) -> bool {
        let ends_before = |one: &KeyRange, two: &KeyRange| one.end.as_ref().is_some_and(|end| *end <= two.from);
        !ends_before(self, other) && !ends_before(other, self)
    }

    /// What of it is not in `other`, in order.
    fn parts_outside(&self, other: &KeyRange) -> Vec<KeyRange> {
        let smaller = |one: &Option<Vec<u8>>, two: &Option<Vec<u8>>| match (one, two) {
            (Some(one), Some(two)) => Some(one.min(two).clone()),
            (one, two) => one.clone().or_else(|| two.clone()),
        };
        let before = KeyRange { from: self.from.clone(), end: smaller(&self.end, &Some(other.from.clone())) };
        let after = other.end.clone().map(|end| KeyRange { from: end.max(self.from.clone()), end: self.end.clone() });
        [Some(before), after].into_iter().flatten().filter(|part| !part.is_empty()).collect()
    }

    /// What of it is in none of `others`.
    fn outside<'a>(&self, others: impl IntoIterator<Item = &'a KeyRange>) -> Vec<KeyRange> {
        others
            .into_iter()
            .filter(|other| self.meets(other))
            .fold(vec![self.clone()], |left, other| left.iter().flat_map(|part| part.parts_outside(other)).collect())
    }

    /// As the arguments of `etcdctl role grant-permission` and `revoke-permission` after the role.
    pub fn arguments(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match &self.end {
            _ if *self == KeyRange::one(&self.from) => text(&self.from),
            None if self.from.is_empty() => "--from-key=true ''".to_owned(),
            None => format!("--from-key=true {}", text(&self.from)),
            Some(_) if *self == KeyRange::under(&self.from) => format!("--prefix=true {}", text(&self.from)),
            Some(end) => format!("{} {}", text(&self.from), text(end)),
        }
    }

    /// For people.
    pub fn words(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match &self.end {
            _ if *self == KeyRange::one(&self.from) => text(&self.from),
            None if self.from.is_empty() => "every key".to_owned(),
            None => format!("every key from {} on", text(&self.from)),
            Some(_) if *self == KeyRange::under(&self.from) => format!("{}…", text(&self.from)),
            Some(end) => format!("every key from {} up to {}", text(&self.from), text(end)),
        }
    }
}

/// One permission of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: String,
    /// Whether it lets read.
    pub read: bool,
    /// Whether it lets write.
    pub write: bool,
    /// Which keys.
    pub keys: KeyRange,
}

/// What a configuration's listeners write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Every key, or all that begin with a text: without one of them something does not work.
    needed: BTreeSet<Keys>,
    /// What may be granted in the place of several of them: the shards of one resource by what they begin with.
    together: BTreeSet<Keys>,
}

impl Needs {
    /// What the listeners of `config` write.
    pub fn of(config: &Config) -> Needs {
        let mut needs = Needs::default();
        for listener in &config.listeners {
            match &listener.role {
                Role::Stamp(stamp) => needs.add_writer(&stamp.campaign),
                Role::Guard(guard) => needs.add_door(&guard.target, &listener.serves),
            }
        }
        needs
    }

    fn add_writer(&mut self, campaign: &[Resource]) {
        for resource in campaign {
            self.needed.insert(Keys::One(keys::epoch(resource)));
            self.needed.insert(Keys::One(keys::leader(resource)));
            self.needed.insert(Keys::Under(keys::candidates(resource)));
        }
        for family in families(campaign) {
            self.together
                .extend([keys::EPOCHS, keys::LEADERS, keys::CANDIDATES].map(|under| of_family(under, &family)));
        }
    }

    fn add_door(&mut self, target: &str, serves: &[Resource]) {
        // All of its target: it clears away the record of a door whose place it takes.
        self.needed.insert(Keys::Under(keys::doors(target)));
        for resource in serves {
            self.needed.insert(Keys::Under(format!("{}{target}/", keys::reports(resource))));
        }
        self.together.extend(families(serves).iter().map(|family| of_family(keys::REPORTS, family)));
    }
}

/// What resources that differ in their last segment only have before it, where there are several.
fn families(resources: &[Resource]) -> Vec<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for (family, _) in resources.iter().filter_map(|resource| resource.as_str().rsplit_once('/')) {
        *count.entry(family).or_default() += 1;
    }
    let several = count.into_iter().filter(|(_, count)| *count > 1);
    several.map(|(family, _)| family.replace('/', "%2F")).collect()
}

fn of_family(under: &str, family: &str) -> Keys {
    Keys::Under(format!("{under}{family}%2F"))
}

/// What a grant reaches that it need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Epoch records.
    Epochs,
    /// Leader keys.
    Leaders,
    /// Candidacies.
    Candidates,
    /// Door records.
    Doors,
    /// Reports of doors.
    Reports,
    /// Keys that are none of epochgate's, or none of this prefix.
    Foreign,
}

/// A grant that reaches further than it need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wide<'a> {
    /// Which.
    pub grant: &'a Grant,
    /// What it lets write besides; empty where it lets read too much only.
    pub writes: Vec<Reach>,
}

/// What is too much, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared<'a> {
    /// Grants that reach too far.
    pub wide: Vec<Wide<'a>>,
    /// Whether the whole prefix can be read.
    pub reads: bool,
    /// What cannot be written; shards that lack all the same, by what they begin with.
    pub missing: Vec<Keys>,
}

/// Compares what is needed under `prefix` with what is granted.
pub fn compare<'a>(needs: &Needs, prefix: &str, grants: &'a [Grant]) -> Compared<'a> {
    let whole = KeyRange::of(prefix, &Keys::Under(String::new()));
    let ranges = |which: fn(&Grant) -> bool| grants.iter().filter(move |grant| which(grant)).map(|grant| &grant.keys);
    let is_written = |keys: &&Keys| KeyRange::of(prefix, keys).outside(ranges(|grant| grant.write)).is_empty();
    let missing: Vec<&Keys> = needs.needed.iter().filter(|keys| !is_written(keys)).collect();
    // The shorter list first: what is needed of shards is in it as a whole.
    let used: Vec<KeyRange> =
        needs.together.iter().chain(needs.alone()).map(|keys| KeyRange::of(prefix, keys)).collect();
    let wide = grants.iter().filter_map(|grant| {
        let writes = if grant.write { reach(prefix, &grant.keys.outside(&used)) } else { Vec::new() };
        let reads = grant.read && !grant.keys.outside([&whole]).is_empty();
        (reads || !writes.is_empty()).then_some(Wide { grant, writes })
    });
    Compared {
        wide: wide.collect(),
        reads: whole.outside(ranges(|grant| grant.read)).is_empty(),
        missing: gathered(&missing, &needs.together),
    }
}

impl Needs {
    /// What is needed and in no range of shards.
    fn alone(&self) -> impl Iterator<Item = &Keys> {
        self.needed.iter().filter(|keys| !self.together.iter().any(|family| family.contain(text(keys))))
    }
}

fn text(keys: &Keys) -> &str {
    let (Keys::One(text) | Keys::Under(text)) = keys;
    text
}

/// Several keys of one range of shards become the range.
fn gathered(missing: &[&Keys], together: &BTreeSet<Keys>) -> Vec<Keys> {
    let range = |keys: &Keys| together.iter().find(|family| family.contain(text(keys)));
    let mut count: BTreeMap<&Keys, usize> = BTreeMap::new();
    for family in missing.iter().filter_map(|keys| range(keys)) {
        *count.entry(family).or_default() += 1;
    }
    let named = missing.iter().map(|keys| match range(keys) {
        Some(family) if count[family] > 1 => family.clone(),
        _ => (*keys).clone(),
    });
    named.collect::<BTreeSet<Keys>>().into_iter().collect()
}

/// What ranges of keys are about.
fn reach(prefix: &str, ranges: &[KeyRange]) -> Vec<Reach> {
    let sections = [
        (keys::EPOCHS, Reach::Epochs),
        (keys::LEADERS, Reach::Leaders),
        (keys::CANDIDATES, Reach::Candidates),
        (keys::DOORS, Reach::Doors),
        (keys::REPORTS, Reach::Reports),
    ];
    let section = |under: &str| KeyRange::of(prefix, &Keys::Under(under.to_owned()));
    let known: Vec<KeyRange> = sections.iter().map(|(under, _)| section(under)).collect();
    let met = sections.iter().zip(&known).filter(|(_, keys)| ranges.iter().any(|range| range.meets(keys)));
    let mut reach: Vec<Reach> = met.map(|((_, reach), _)| *reach).collect();
    if ranges.iter().any(|range| !range.outside(&known).is_empty()) {
        reach.push(Reach::Foreign);
    }
    reach
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/epochgate/v1/";

    fn resources(names: &[&str]) -> Vec<Resource> {
        names.iter().map(|name| name.parse().expect("a resource")).collect()
    }

    fn writer(names: &[&str]) -> Needs {
        let mut needs = Needs::default();
        needs.add_writer(&resources(names));
        needs
    }

    fn door(target: &str, names: &[&str]) -> Needs {
        let mut needs = Needs::default();
        needs.add_door(target, &resources(names));
        needs
    }

    fn under(key: &str) -> KeyRange {
        KeyRange::of(PREFIX, &Keys::Under(key.to_owned()))
    }

    fn one(key: &str) -> KeyRange {
        KeyRange::of(PREFIX, &Keys::One(key.to_owned()))
    }

    fn may_write(keys: KeyRange) -> Grant {
        Grant { role: "role".into(), read: false, write: true, keys }
    }

    fn may_read(keys: KeyRange) -> Grant {
        Grant { role: "role".into(), read: true, write: false, keys }
    }

    /// What each of these is too much by, what is missing, and whether the prefix can be read.
    fn compared(needs: &Needs, grants: &[Grant]) -> (Vec<Vec<Reach>>, Vec<String>, bool) {
        let compared = compare(needs, PREFIX, grants);
        let missing = compared.missing.iter().map(|keys| KeyRange::of("", keys).arguments()).collect();
        (compared.wide.into_iter().map(|wide| wide.writes).collect(), missing, compared.reads)
    }

    #[test]
    fn ranges_are_read_as_etcd_means_them() {
        let key = |key: &str| KeyRange::one(key.as_bytes());
        let all = KeyRange::granted(b"\0", b"\0");
        for (range, holds, holds_not) in [
            (KeyRange::granted(b"b", b""), &["b"][..], &["a", "b\0", "ba", "c"][..]),
            (KeyRange::granted(b"b", b"c"), &["b", "ba", "b\u{7f}"], &["a", "c"]),
            (KeyRange::granted(b"b", b"\0"), &["b", "ba", "zzz"], &["a"]),
            (all.clone(), &["\0", "a", "zzz"], &[]),
            (KeyRange::under(b"b/"), &["b/", "b/a"], &["b", "b.", "b0"]),
            (KeyRange::under(b""), &["\0", "zzz"], &[]),
        ] {
            for held in holds {
                assert!(key(held).outside([&range]).is_empty(), "{held:?} is in {range:?}");
            }
            for other in holds_not {
                assert_eq!(key(other).outside([&range]), [key(other)], "{other:?} is not in {range:?}");
            }
        }
        assert_eq!(KeyRange::under(b"a\xff").end, Some(b"b".to_vec()));
        assert_eq!(KeyRange::under(b"\xff").end, None);
        assert_eq!(KeyRange::granted(b"a", b"b"), KeyRange::under(b"a"));
    }

    #[test]
    fn what_is_left_of_a_range_is_what_no_other_has() {
        let range = |from: &str, end: &str| KeyRange::granted(from.as_bytes(), end.as_bytes());
        let left = |others: &[KeyRange]| range("b", "f").outside(others);
        assert_eq!(left(&[]), [range("b", "f")]);
        assert_eq!(left(&[range("a", "b"), range("f", "z")]), [range("b", "f")]);
        assert_eq!(left(&[range("c", "d")]), [range("b", "c"), range("d", "f")]);
        assert_eq!(left(&[range("a", "c"), range("e", "\0")]), [range("c", "e")]);
        assert_eq!(left(&[range("d", "f"), range("b", "d")]), []);
        assert_eq!(left(&[range("a", "\0")]), []);
        assert_eq!(KeyRange::granted(b"b", b"\0").outside(&[range("c", "d")]).len(), 2);
    }

    #[test]
    fn the_roles_of_the_page_are_just_right() {
        let grants =
            [may_read(under("")), may_write(under("doors/orders/")), may_write(under("reports/orders/orders/"))];
        assert_eq!(compared(&door("orders", &["orders"]), &grants), (vec![], vec![], true));
        let grants = [
            may_read(under("")),
            may_write(one("epochs/orders")),
            may_write(one("leaders/orders")),
            may_write(under("candidates/orders/")),
        ];
        assert_eq!(compared(&writer(&["orders"]), &grants), (vec![], vec![], true));
    }

    #[test]
    fn shards_may_be_granted_together_where_there_are_several() {
        let shards = [may_read(under("")), may_write(under("doors/shop/")), may_write(under("reports/orders%2F"))];
        assert_eq!(compared(&door("shop", &["orders/0", "orders/1"]), &shards), (vec![], vec![], true));
        assert_eq!(compared(&door("shop", &["orders/0"]), &shards), (vec![vec![Reach::Reports]], vec![], true));
        let one_by_one = ["orders%2F0", "orders%2F1"].map(|shard| may_write(under(&format!("reports/{shard}/shop/"))));
        let grants = [&shards[..2], &one_by_one].concat();
        assert_eq!(compared(&door("shop", &["orders/0", "orders/1"]), &grants), (vec![], vec![], true));
        // All that is missing of shards is one command; of a single one it is that one.
        let missing = |needs: &Needs, grants: &[Grant]| compared(needs, grants).1;
        assert_eq!(
            missing(&door("shop", &["orders/0", "orders/1"]), &shards[..2]),
            ["--prefix=true reports/orders%2F"]
        );
        assert_eq!(
            missing(&door("shop", &["orders/0", "orders/1"]), &grants[..3]),
            ["--prefix=true reports/orders%2F1/shop/"]
        );
        // A family of shards is not its namesakes.
        assert_eq!(
            compared(&writer(&["orders/0", "orders/1"]), &[may_write(under("epochs/orders"))]).0,
            [vec![Reach::Epochs]]
        );
    }

    #[test]
    fn a_grant_that_reaches_too_far_is_told_by_what_it_reaches() {
        let everything =
            [Reach::Epochs, Reach::Leaders, Reach::Candidates, Reach::Doors, Reach::Reports, Reach::Foreign];
        let guard = door("orders", &["orders"]);
        for (wide, reach) in [
            (under("epochs/"), &everything[..1]),
            (one("epochs/orders"), &everything[..1]),
            (one("leaders/orders"), &everything[1..2]),
            (under("candidates/orders/"), &everything[2..3]),
            (under("doors/"), &everything[3..4]),
            (under("doors/orders"), &everything[3..4]),
            (under("reports/orders/"), &everything[4..5]),
            (under(""), &everything),
            (one("elsewhere"), &everything[5..]),
            (KeyRange::granted(b"/other", b""), &everything[5..]),
            (KeyRange::granted(b"\0", b"\0"), &everything),
            (KeyRange::granted(b"/epochgate/v1/leaders/", b"\0"), &[Reach::Leaders, Reach::Reports, Reach::Foreign]),
        ] {
            assert_eq!(compared(&guard, &[may_write(wide.clone())]).0, [reach], "{wide:?}");
        }
        // Of a writer's own resource it is no excess, of another one it is.
        let grants = [may_write(one("epochs/orders")), may_write(one("epochs/billing"))];
        assert_eq!(compared(&writer(&["orders"]), &grants).0, [[Reach::Epochs]]);
        // What both of a process' listeners need is needed.
        let mut both = door("orders", &["orders"]);
        both.add_writer(&resources(&["orders"]));
        assert_eq!(compared(&both, &[may_write(one("epochs/orders"))]).0, Vec::<Vec<Reach>>::new());
    }

    #[test]
    fn reading_needs_the_whole_prefix_and_no_more() {
        let guard = door("orders", &["orders"]);
        assert!(!compared(&guard, &[may_read(under("epochs/")), may_read(under("reports/"))]).2);
        let halves = [
            KeyRange::granted(b"/epochgate/v1/", b"/epochgate/v1/m"),
            KeyRange::granted(b"/epochgate/v1/m", b"/epochgate/v10"),
        ];
        let (wide, _, reads) = compared(&guard, &halves.map(may_read));
        assert!(reads && wide.is_empty(), "two halves are the whole");
        let (wide, _, reads) = compared(&guard, &[may_read(KeyRange::granted(b"\0", b"\0"))]);
        assert_eq!((wide, reads), (vec![vec![]], true));
    }

    #[test]
    fn what_is_missing_is_named_as_it_is_granted() {
        let (_, missing, reads) = compared(&writer(&["orders"]), &[]);
        assert_eq!(missing, ["epochs/orders", "leaders/orders", "--prefix=true candidates/orders/"]);
        assert!(!reads);
        let (_, missing, _) = compared(&door("orders", &["orders"]), &[may_read(under(""))]);
        assert_eq!(missing, ["--prefix=true doors/orders/", "--prefix=true reports/orders/orders/"]);
    }

    #[test]
    fn a_range_is_written_as_etcdctl_takes_it() {
        for (range, arguments, words) in [
            (KeyRange::granted(b"k", b""), "k", "k"),
            (KeyRange::granted(b"k/", b"k0"), "--prefix=true k/", "k/…"),
            (KeyRange::granted(b"k", b"\0"), "--from-key=true k", "every key from k on"),
            (KeyRange::granted(b"\0", b"\0"), "--from-key=true ''", "every key"),
            (KeyRange::granted(b"k", b"m"), "k m", "every key from k up to m"),
        ] {
            assert_eq!((range.arguments().as_str(), range.words().as_str()), (arguments, words));
        }
    }
}
