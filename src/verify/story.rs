//! The lines of a history put in order: by process and its lives, and which of two lines was first.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::coverage::listed;
use super::{Line, Options, Outside, What};
use crate::event::{Event, Listening};
use crate::fence::{Epoch, Resource};

/// A line, and its number in the input.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub line: &'a Line,
    pub number: usize,
}

/// From one start of a process to its end.
#[derive(Debug)]
pub struct Life<'a> {
    /// The process.
    pub of: Arc<str>,
    /// Its lines by time.
    pub items: Vec<Item<'a>>,
    /// Whether its first line is the first thing that happened.
    pub from_its_start: bool,
    /// Whether everything that happened in it is there.
    pub whole: bool,
    /// Whether it says that it stopped in order.
    pub stopped: bool,
    listeners: BTreeMap<&'a str, &'a Listening>,
}

/// One door: a process, the target and the resource.
pub type DoorOf = (Arc<str>, Arc<str>, Resource);

/// A history to be checked.
pub struct Story<'a> {
    /// How to check it.
    pub options: Options,
    /// Every line, in the order of the input.
    pub items: Vec<Item<'a>>,
    /// The lives of each process of the product, in order.
    pub lives: BTreeMap<Arc<str>, Vec<Life<'a>>>,
    /// Targets with a door that only counts.
    pub audited: BTreeSet<Arc<str>>,
    /// Epochs that a door of a target was forced to open.
    pub forced: BTreeSet<(Arc<str>, Resource, Epoch)>,
    /// The targets that each process stands before with a resource.
    targets: BTreeMap<(Arc<str>, Resource), BTreeSet<Arc<str>>>,
}

impl<'a> Story<'a> {
    /// Puts the lines in order.
    pub fn of(lines: &'a [Line], options: Options) -> Story<'a> {
        let items: Vec<Item<'a>> = lines.iter().enumerate().map(|(number, line)| Item { line, number }).collect();
        let mut story = Story {
            options,
            lives: BTreeMap::new(),
            audited: BTreeSet::new(),
            forced: BTreeSet::new(),
            targets: BTreeMap::new(),
            items,
        };
        story.lives = lives(&story);
        for Item { line, .. } in &story.items {
            let What::Event(event) = &line.what else { continue };
            match event {
                Event::Started { listeners, .. } => {
                    let audited = listeners.iter().filter(|listener| listener.audit);
                    story.audited.extend(audited.filter_map(|listener| listener.target.clone()));
                }
                Event::Opened { resource, target, epoch, forced: true } => {
                    story.forced.insert((Arc::clone(target), resource.clone(), *epoch));
                }
                _ => {}
            }
            if let Some((resource, target)) = door_in(event) {
                let place = (Arc::clone(&line.from), resource.clone());
                story.targets.entry(place).or_default().insert(Arc::clone(target));
            }
        }
        story
    }

    /// Whether `first` certainly happened before `second`.
    pub fn is_before(&self, first: Item<'_>, second: Item<'_>) -> bool {
        if first.line.place.file == second.line.place.file {
            return in_time(first, second) == Ordering::Less;
        }
        self.options.clock && first.line.at < second.line.at
    }

    /// What tells lines apart whose times can't be compared: nothing, or the file that they stand in.
    pub fn clock_of(&self, line: &'a Line) -> &'a str {
        if self.options.clock { "" } else { &line.place.file }
    }

    /// The target that a listener of a life stands before for a resource; `None` where the history does not say.
    pub fn target_of(&self, life: &Life<'a>, listener: &str, resource: &Resource) -> Option<Arc<str>> {
        if let Some(listening) = life.listeners.get(listener) {
            return listening.target.clone();
        }
        let targets = self.targets.get(&(Arc::clone(&life.of), resource.clone()))?;
        let mut targets = targets.iter();
        targets.next().filter(|_| targets.next().is_none()).cloned()
    }

    /// Every target that a process of the product stands before.
    pub fn guarded(&self) -> BTreeSet<Arc<str>> {
        let said =
            self.all_lives().flat_map(|life| life.listeners.values()).filter_map(|listener| listener.target.clone());
        said.chain(self.targets.values().flatten().cloned()).collect()
    }

    /// The processes of some lives that may have done more than their lines say, and why; `None` where there are none.
    pub fn unfinished<'s>(&self, lives: impl Iterator<Item = &'s Life<'a>>) -> Option<String>
    where
        'a: 's,
    {
        let names: BTreeSet<&str> = lives.filter(|life| !life.whole).map(|life| &*life.of).collect();
        (!names.is_empty()).then(|| {
            format!(
                "the lines of {} do not end with `stopped`, and the last may be missing: stop each process in order \
                 (SIGTERM) before its file is checked",
                listed(names)
            )
        })
    }

    /// Every life of every process.
    pub fn all_lives(&self) -> impl Iterator<Item = &Life<'a>> {
        self.lives.values().flatten()
    }
}

impl Life<'_> {
    /// Whether it is of a process that stamps.
    pub fn stamps(&self) -> bool {
        let stamped = |item: &Item<'_>| matches!(item.line.what, What::Event(Event::Stamped { .. }));
        self.listeners.values().any(|listener| listener.target.is_none()) || self.items.iter().any(stamped)
    }

    /// Whether a door of it before this target lets in sessions, each with any number of writes.
    pub fn carries_sessions(&self, target: &str) -> bool {
        self.listeners.values().any(|listener| listener.sessions && listener.target.as_deref() == Some(target))
    }

    /// Whether it has a door before this target.
    pub fn guards(&self, target: &str) -> bool {
        self.listeners.values().any(|listener| listener.target.as_deref() == Some(target))
    }
}

/// By time; by the order in the file where that is the same.
pub fn in_time(first: Item<'_>, second: Item<'_>) -> Ordering {
    (first.line.at, first.number).cmp(&(second.line.at, second.number))
}

/// The door that an event of control is about.
fn door_in(event: &Event) -> Option<(&Resource, &Arc<str>)> {
    match event {
        Event::Verified { resource, target, .. }
        | Event::Persisted { resource, target, .. }
        | Event::Fenced { resource, target, .. }
        | Event::Drained { resource, target, .. }
        | Event::Opened { resource, target, .. } => Some((resource, target)),
        _ => None,
    }
}

fn lives<'a>(story: &Story<'a>) -> BTreeMap<Arc<str>, Vec<Life<'a>>> {
    let mut own: BTreeMap<Arc<str>, Vec<Item<'a>>> = BTreeMap::new();
    let mut marks: BTreeMap<Arc<str>, Vec<Item<'a>>> = BTreeMap::new();
    for item in &story.items {
        match &item.line.what {
            What::Event(_) => own.entry(Arc::clone(&item.line.from)).or_default().push(*item),
            What::Outside(Outside::Killed { process } | Outside::Restarted { process }) => {
                marks.entry(Arc::clone(process)).or_default().push(*item);
            }
            What::Outside(_) => {}
        }
    }
    let none = Vec::new();
    own.into_iter()
        .map(|(process, items)| {
            let marks = marks.get(&process).unwrap_or(&none);
            let says_so = items.iter().any(|item| is_start(item.line));
            let parts = if says_so { by_starts(items) } else { by_marks(story, items, marks) };
            let lives = parts.into_iter().enumerate();
            let lives = lives.map(|(number, items)| live(Arc::clone(&process), number, items, story.options)).collect();
            (process, lives)
        })
        .collect()
}

fn is_start(line: &Line) -> bool {
    matches!(line.what, What::Event(Event::Started { .. }))
}

/// A process writes one file, so that every line of a life stands before the next start; within it, the threads of the
/// process may have overtaken each other on the way to the file.
fn by_starts(items: Vec<Item<'_>>) -> Vec<Vec<Item<'_>>> {
    let mut parts: Vec<Vec<Item<'_>>> = Vec::new();
    for item in items {
        match parts.last_mut() {
            Some(part) if !is_start(item.line) => part.push(item),
            _ => parts.push(vec![item]),
        }
    }
    parts
}

/// Where the process itself does not say when it starts, whoever killed it does.
fn by_marks<'a>(story: &Story<'a>, mut items: Vec<Item<'a>>, marks: &[Item<'a>]) -> Vec<Vec<Item<'a>>> {
    items.sort_by(|first, second| in_time(*first, *second));
    let mut marks: Vec<Item<'a>> = marks.to_vec();
    marks.sort_by(|first, second| in_time(*first, *second));
    let mut marks = marks.into_iter().peekable();
    let mut parts: Vec<Vec<Item<'a>>> = vec![Vec::new()];
    for item in items {
        let mut anew = false;
        while marks.next_if(|mark| story.is_before(*mark, item)).is_some() {
            anew = true;
        }
        match parts.last_mut() {
            Some(part) if !anew || part.is_empty() => part.push(item),
            _ => parts.push(vec![item]),
        }
    }
    parts
}

fn live<'a>(of: Arc<str>, number: usize, mut items: Vec<Item<'a>>, options: Options) -> Life<'a> {
    items.sort_by(|first, second| in_time(*first, *second));
    let said = items.iter().find_map(|item| match &item.line.what {
        What::Event(Event::Started { listeners, .. }) => Some(listeners),
        _ => None,
    });
    let listeners = said.into_iter().flatten().map(|listener| (&*listener.name, listener)).collect();
    let stopped = items.iter().any(|item| matches!(item.line.what, What::Event(Event::Stopped {})));
    Life {
        of,
        from_its_start: said.is_some() || number > 0 || options.whole,
        whole: (said.is_some() && stopped) || options.whole,
        stopped,
        items,
        listeners,
    }
}
