//! A host for pods, as far as our container needs one: volumes as folders, variables, arguments, probes.
//!
//! What a manifest mounts at a path lies in a temporary folder, and the path is that of the folder wherever the manifest
//! or its ConfigMap names it; all interfaces of the pod are those of 127.0.0.1.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::pods::{Manifests, Pod, list};
use super::support::client;
use super::support::ports;
use super::support::process::{LONG, Launch, Process, eventually};

/// Where volumes and Secrets are. Processes go first: declare them after it.
pub struct Host {
    folder: tempfile::TempDir,
    /// Folders that stand for Secrets, by name.
    secrets: BTreeMap<String, PathBuf>,
    /// Names of Services, with what they are here.
    names: Vec<(String, String)>,
}

/// A container that was started. Dropping it ends it.
pub struct Container {
    pub process: Process,
    manifest: Value,
}

impl Host {
    pub fn new() -> Host {
        Host { folder: tempfile::tempdir().unwrap(), secrets: BTreeMap::new(), names: Vec::new() }
    }

    /// With a Secret, of the files in a folder.
    pub fn secret(mut self, name: &str, folder: &Path) -> Host {
        self.secrets.insert(name.to_owned(), folder.to_owned());
        self
    }

    /// Where a name leads to.
    pub fn resolve(&mut self, name: &str, to: &str) {
        self.names.push((name.to_owned(), to.to_owned()));
    }

    /// Starts a container of a pod, as what the manifest says.
    #[track_caller]
    pub fn start(&self, all: &Manifests, pod: &Pod<'_>, name: &str, container: &Value) -> Container {
        let mounts = self.mount(all, pod, name, container);
        let variables = variables(name, container);
        let mut launch = Launch::epochgate(name);
        for argument in list(&container["args"]) {
            launch = launch.arg(self.here(&expanded(argument.as_str().unwrap(), &variables), &mounts));
        }
        for (variable, value) in &variables {
            launch = launch.env(variable, self.here(value, &mounts));
        }
        Container { process: launch.start(), manifest: container.clone() }
    }

    /// Gives every pod of this name the ConfigMaps as they are now, as the kubelet does: whole, by one rename.
    pub fn renew(&self, all: &Manifests, pod: &Pod<'_>, name: &str, container: &Value) {
        self.mount(all, pod, name, container);
    }

    /// Makes what the container mounts. Returns its paths with those here, the longest first.
    #[track_caller]
    fn mount(&self, all: &Manifests, pod: &Pod<'_>, name: &str, container: &Value) -> Vec<(String, String)> {
        let claims = list(&pod.object["spec"]["volumeClaimTemplates"]);
        let mut mounts = Vec::new();
        for mount in list(&container["volumeMounts"]) {
            let volume = mount["name"].as_str().unwrap();
            let folder = self.folder.path().join(name).join(volume);
            let source = list(&pod.spec["volumes"]).iter().find(|source| source["name"] == volume);
            let place = match source {
                Some(source) if source["secret"].is_object() => {
                    let secret = source["secret"]["secretName"].as_str().unwrap();
                    self.secrets.get(secret).unwrap_or_else(|| panic!("there is no Secret {secret}")).clone()
                }
                Some(source) => {
                    let kept = ["configMap", "emptyDir", "persistentVolumeClaim"];
                    assert!(kept.iter().any(|kind| source[*kind].is_object()), "{source}");
                    folder
                }
                None => {
                    assert!(claims.iter().any(|claim| claim["metadata"]["name"] == volume), "no volume {volume}");
                    folder
                }
            };
            fs::create_dir_all(&place).unwrap();
            mounts.push((mount["mountPath"].as_str().unwrap().to_owned(), place.display().to_string()));
        }
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for source in list(&pod.spec["volumes"]).iter().filter(|source| source["configMap"].is_object()) {
            let map = all.named("ConfigMap", source["configMap"]["name"].as_str().unwrap());
            let folder = self.folder.path().join(name).join(source["name"].as_str().unwrap());
            self.project(&folder, &map["data"], &mounts);
        }
        mounts
    }

    /// Files as the kubelet puts them: links through `..data`, which is replaced at once.
    fn project(&self, folder: &Path, data: &Value, mounts: &[(String, String)]) {
        let version = (0..).map(|n| folder.join(format!("..{n}"))).find(|path| !path.exists()).unwrap();
        fs::create_dir_all(&version).unwrap();
        for (file, text) in data.as_object().unwrap() {
            fs::write(version.join(file), self.here(text.as_str().unwrap(), mounts)).unwrap();
            let link = folder.join(file);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(file), link).unwrap();
            }
        }
        let fresh = folder.join("..data_tmp");
        symlink(version.file_name().unwrap(), &fresh).unwrap();
        fs::rename(fresh, folder.join("..data")).unwrap();
    }

    fn here(&self, text: &str, mounts: &[(String, String)]) -> String {
        let mut text = text.replace("0.0.0.0:", "127.0.0.1:");
        for (from, to) in mounts.iter().chain(&self.names) {
            text = text.replace(from.as_str(), to);
        }
        text
    }
}

/// A container's variables, each with those before it filled in.
fn variables(pod: &str, container: &Value) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for variable in list(&container["env"]) {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pod.to_owned(),
            Some("status.podIP") => "127.0.0.1".to_owned(),
            Some(other) => panic!("no pod here has a {other}"),
            None => expanded(variable["value"].as_str().unwrap(), &variables),
        };
        variables.push((variable["name"].as_str().unwrap().to_owned(), value));
    }
    variables
}

fn expanded(text: &str, variables: &[(String, String)]) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

impl Container {
    /// A port of it, by its name.
    #[track_caller]
    pub fn port(&self, name: &Value) -> SocketAddr {
        let found = list(&self.manifest["ports"]).iter().find(|port| port["name"] == *name);
        let port = found.unwrap_or_else(|| panic!("no port {name}"))["containerPort"].as_u64().unwrap();
        ports::local(port.try_into().unwrap())
    }

    /// What one of its probes would see now: a status, or none.
    pub fn probe(&self, name: &str) -> Option<u16> {
        let get = &self.manifest[name]["httpGet"];
        client::get(self.port(&get["port"]), get["path"].as_str().unwrap()).ok().map(|answer| answer.status)
    }

    /// Waits until it has started and is ready, by its probes.
    #[track_caller]
    pub fn await_readiness(&mut self) {
        for name in ["startupProbe", "readinessProbe"] {
            eventually(&format!("its {name} passes"), LONG, || {
                assert!(self.process.is_running(), "{}", self.process.recent());
                self.probe(name) == Some(200)
            });
        }
        assert_eq!(self.probe("livenessProbe"), Some(200));
    }

    /// SIGTERM, and its end in order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.terminate();
        let status = self.process.wait(LONG);
        assert!(status.success(), "{status}: {}", self.process.recent());
    }
}
