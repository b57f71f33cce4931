//! What is added to a pod spec: decided once, then put into the text by [`super::edit`] and into the value here, so that
//! [`super::proof`] can compare the two.

use serde_json::Value as Json;

use super::cursor::{Cursor, Obstacle};
use super::proof::{Value, value_of_json};
use super::settings::Settings;
use super::sidecar;

/// The key that others are placed beside: every pod spec has it.
pub(super) const BESIDE: &str = "containers";

/// One addition to a pod spec.
#[derive(Debug)]
pub(super) struct Addition {
    pub(super) key: &'static str,
    pub(super) what: What,
    /// Where the key goes that is not there: before `containers`, or behind.
    pub(super) before: bool,
}

#[derive(Debug)]
pub(super) enum What {
    /// The first item of a list.
    First(Json),
    /// The last items of a list.
    Last(Vec<Json>),
    /// The value of a key that is not there.
    Set(Json),
}

impl Addition {
    /// The value of its key, where there was none.
    pub(super) fn whole(&self) -> Json {
        match &self.what {
            What::First(item) => Json::from(vec![item.clone()]),
            What::Last(items) => Json::from(items.clone()),
            What::Set(value) => value.clone(),
        }
    }
}

/// What a pod spec gets, and what is left to the user in it.
pub(super) fn wanted(
    spec: &Cursor<'_>,
    settings: &Settings,
    has_group: bool,
) -> Result<(Vec<Addition>, Option<String>), Obstacle> {
    const STOP: &str = "terminationGracePeriodSeconds";
    let container = sidecar::container(settings);
    let mut additions = vec![if settings.native {
        // First of all: what the service does while it is made ready may write too.
        Addition { key: "initContainers", what: What::First(container), before: true }
    } else {
        // Last: tools take the first one for the service.
        Addition { key: BESIDE, what: What::Last(vec![container]), before: false }
    }];
    let mut note = None;
    match spec.step(STOP)?.filter(|stop| !stop.node.is_null()) {
        None => {
            let seconds = sidecar::pod_stop_seconds(settings, None);
            // A key without a value is one that is there.
            if spec.entry(STOP)?.is_none() {
                additions.push(Addition { key: STOP, what: What::Set(seconds.into()), before: false });
            }
        }
        Some(stop) => {
            let theirs = stop.node.text().unwrap_or_default();
            let seconds = sidecar::pod_stop_seconds(settings, theirs.parse().ok());
            if theirs.parse() != Ok(seconds) {
                note = Some(format!("its {STOP} is {theirs}; with the sidecar's own time it would be {seconds}"));
            }
        }
    }
    let volumes = What::Last(sidecar::volumes(settings, has_group));
    additions.push(Addition { key: "volumes", what: volumes, before: false });
    Ok((additions, note))
}

/// Makes the additions to a document's value.
pub(super) fn put(document: &mut Value, spec: &Cursor<'_>, additions: &[Addition]) -> Result<(), String> {
    if additions.is_empty() {
        return Ok(());
    }
    let inner = spec.path.iter().try_fold(document, |value, at| value.inner(*at));
    let Some(entries) = inner.and_then(Value::entries) else { return Err("its pod spec is no mapping".to_owned()) };
    // What goes behind `containers` goes behind what has been put there already.
    let mut behind = 1;
    for addition in additions {
        let place = |entries: &[(Value, Value)], key: &str| entries.iter().position(|(name, _)| name.is_text(key));
        let added = value_of_json(&addition.whole());
        let at = place(entries, addition.key);
        match (at.map(|at| &mut entries[at].1), added) {
            (None, added) => {
                let Some(beside) = place(entries, BESIDE) else { return Err("it has no containers".to_owned()) };
                let at = if addition.before { beside } else { beside + behind };
                behind += usize::from(!addition.before);
                entries.insert(at, (Value::Text(addition.key.to_owned()), added));
            }
            (Some(there @ Value::Null), added) => *there = added,
            (Some(there), Value::List(added)) => {
                let Some(items) = there.items() else { return Err(format!("its {} is no list", addition.key)) };
                let at = if matches!(addition.what, What::First(_)) { 0 } else { items.len() };
                items.splice(at..at, added);
            }
            (Some(_), _) => return Err(format!("its {} is there already", addition.key)),
        }
    }
    Ok(())
}
