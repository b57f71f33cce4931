//! Helm, and the folders that it is shown.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::process::{LONG, Launch};

/// The newest Kubernetes that manifests are made for and checked against; the first with native sidecars; one between.
pub const KUBERNETES: [&str; 3] = ["1.37", "1.33", "1.29"];

/// A path from the top of the checkout.
pub fn top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A release to be.
#[derive(Clone)]
pub struct Release {
    name: String,
    chart: PathBuf,
    kubernetes: String,
    args: Vec<String>,
}

/// A release of a chart, by its path from the top.
pub fn release(name: &str, chart: &str) -> Release {
    Release { name: name.to_owned(), chart: top(chart), kubernetes: KUBERNETES[0].to_owned(), args: Vec::new() }
}

impl Release {
    /// Of a chart that lies elsewhere.
    pub fn of(mut self, chart: &Path) -> Release {
        chart.clone_into(&mut self.chart);
        self
    }

    /// With a file of values.
    pub fn file(self, path: &Path) -> Release {
        self.arg("--values").arg(&path.display().to_string())
    }

    /// With a value, in the words of `--set`.
    pub fn set(self, value: impl AsRef<str>) -> Release {
        self.arg("--set").arg(value.as_ref())
    }

    /// On a cluster of this version.
    pub fn kubernetes(mut self, version: &str) -> Release {
        version.clone_into(&mut self.kubernetes);
        self
    }

    fn arg(mut self, arg: &str) -> Release {
        self.args.push(arg.to_owned());
        self
    }

    /// What it would apply; else what Helm complained of.
    pub fn try_render(&self) -> Result<String, String> {
        let helm = Launch::program("helm").args(["template", &self.name]).arg(&self.chart);
        let helm = helm.args(["--kube-version", &self.kubernetes, "--namespace", "shop"]).args(&self.args);
        let mut process = without_own_settings(helm).start();
        let done = process.wait(LONG).success();
        if done { Ok(process.stdout()) } else { Err(process.stderr()) }
    }

    /// What it would apply.
    #[track_caller]
    pub fn render(&self) -> String {
        self.try_render().unwrap_or_else(|error| panic!("helm template {} {:?}: {error}", self.name, self.args))
    }

    /// The complaint.
    #[track_caller]
    pub fn refusal(&self) -> String {
        self.try_render().err().unwrap_or_else(|| panic!("helm template {} {:?} refuses nothing", self.name, self.args))
    }
}

/// `helm lint` with these values.
#[track_caller]
pub fn lint(chart: &Path, values: Option<&Path>) {
    let mut helm = Launch::program("helm").args(["lint", "--strict", "--kube-version", KUBERNETES[0]]).arg(chart);
    if let Some(values) = values {
        helm = helm.arg("--values").arg(values);
    }
    let mut process = without_own_settings(helm).start();
    let done = process.wait(LONG).success();
    assert!(done, "{}{}", process.stdout(), process.stderr());
}

/// What somebody's own Helm is told by its environment is not for this.
fn without_own_settings(mut helm: Launch) -> Launch {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HELM_")) {
        helm = helm.env_remove(&name.to_string_lossy());
    }
    helm
}

/// The files of a folder with this end of their name, in order.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(end));
    found.sort();
    found
}

/// Copies a folder, and what its links lead to, so that a test may change it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).unwrap();
        }
    }
}

/// Compares with what is kept, or keeps it where `UPDATE` is set.
#[track_caller]
pub fn assert_kept(path: &Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, text).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).find(|(kept, now)| kept != now);
    let name = path.strip_prefix(top("")).unwrap_or(path).display();
    assert!(
        kept == text,
        "{name} is not what is made now: look, then UPDATE=1 cargo test --test charts\n  {}",
        differs.map_or("one is longer".to_owned(), |(kept, now)| format!("kept: {kept}\n  now:  {now}"))
    );
}
