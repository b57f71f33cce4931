//! The sidecar, added to Kubernetes manifests: text and settings in, text and a report out. No file, no cluster.
//!
//! The text is patched, not written anew: what is not added stays as it was to the byte, with its comments, quotes, anchors
//! and line ends. Afterwards the result is read again and compared with what should have come of it ([`proof`]).
//!
//! | file | what it is for |
//! |---|---|
//! | [`settings`] | what the user says: role, image, names; all of it checked |
//! | [`sidecar`] | the container and its volumes, as the charts have them |
//! | [`tree`] | YAML as a tree that knows where in the text everything stands |
//! | [`cursor`] | goes down in such a tree, and says what is in the way |
//! | [`find`] | workloads, and whether one gets the sidecar |
//! | [`additions`] | what is added to a pod spec, once as changes of the text and once as a value |
//! | [`edit`] | where in the text it goes |
//! | [`render`] | how it is written: block or flow style |
//! | [`proof`] | whether the result says just what it should |
//!
//! Nothing is printed unless all of it is right: with one manifest that cannot be read there is no output at all.

mod additions;
mod cursor;
mod edit;
mod find;
mod proof;
mod render;
mod settings;
mod sidecar;
#[cfg(test)]
mod tests;
mod tree;

pub use settings::{Role, Settings, Unfit, default_image, is_label, is_name};

use find::Found;
use tree::Document;

/// The label or annotation that keeps the sidecar out, or says which one comes in.
pub const OPT: &str = "epochgate.dev/inject";
/// The container. A pod spec that has one of this name has the sidecar.
pub const CONTAINER: &str = "epochgate";

/// One file, or what came over standard input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// How messages name it.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// All documents, in order.
    pub yaml: String,
    /// Every workload, in order.
    pub workloads: Vec<Workload>,
    /// How many objects have no pods, and were left as they are.
    pub others: usize,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `deployment/orders`.
    pub name: String,
    /// Its namespace, where it says one.
    pub namespace: Option<String>,
    /// What became of it.
    pub said: Said,
}

/// What became of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has the sidecar now. What is left for the user to do in it, where there is something.
    Added(Option<String>),
    /// It had it before.
    Present,
    /// It does not get it, for this reason.
    Skipped(String),
    /// It said itself that it does not want it: where.
    OptedOut(String),
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, as near as is known.
    pub at: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Outcome {
    /// Whether a workload is left without the sidecar that did not say that it wants none.
    pub fn lacks(&self) -> bool {
        self.workloads.iter().any(|workload| matches!(workload.said, Said::Skipped(_)))
    }

    /// Whether anything was added.
    pub fn added(&self) -> bool {
        self.workloads.iter().any(|workload| matches!(workload.said, Said::Added(_)))
    }
}

/// Adds the sidecar to every workload of the inputs that can have it. Errs where an input cannot be read, where a workload
/// makes no sense, or where the change cannot be made in its text.
pub fn inject(inputs: &[Input<'_>], settings: &Settings) -> Result<Outcome, Problem> {
    let mut outcome = Outcome { yaml: String::new(), workloads: Vec::new(), others: 0 };
    let mut expected = Vec::new();
    for input in inputs {
        let documents = tree::parse(input)?;
        let mut edits = Vec::new();
        for document in &documents {
            let mut value = proof::value(&document.root);
            for found in find::workloads(input, document, settings)? {
                let Found::Workload { workload, spec, additions } = found else {
                    outcome.others += 1;
                    continue;
                };
                let could_not = |why: String| unpatched(input, document, &workload.name, &why);
                edits.extend(edit::edits(input.text, &spec, &additions).map_err(could_not)?);
                additions::put(&mut value, &spec, &additions).map_err(could_not)?;
                outcome.workloads.push(workload);
            }
            expected.push(value);
        }
        append(&mut outcome.yaml, &edit::apply(input.text, edits), &documents);
    }
    proof::check(&outcome.yaml, &expected)?;
    Ok(outcome)
}

/// Puts one file's documents behind those of the others.
fn append(yaml: &mut String, text: &str, documents: &[Document]) {
    if yaml.is_empty() {
        yaml.push_str(text);
        return;
    }
    let Some(first) = documents.first() else { return };
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    let text = text.strip_prefix(tree::MARK).unwrap_or(text);
    // A directive belongs to what follows it, and may stand only where a document has ended.
    let has_directive = first.is_explicit && text.lines().any(|line| line.starts_with('%'));
    yaml.push_str(if has_directive {
        "...\n"
    } else if first.is_explicit {
        ""
    } else {
        "---\n"
    });
    yaml.push_str(text);
}

fn unpatched(input: &Input<'_>, document: &Document, name: &str, why: &str) -> Problem {
    Problem {
        at: format!("{}:{}", input.name, document.root.line),
        what: format!("the sidecar cannot be put into the text of {name}: {why}"),
        help: "write its pod spec plainly, in block style or as JSON; kubectl create --dry-run=client -o yaml -f FILE does"
            .to_owned(),
    }
}
