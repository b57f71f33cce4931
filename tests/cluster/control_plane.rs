//! A control plane: etcd, the API server, the controllers, and kubectl. There is no node, so pods are made and never run.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::support::etcd::Etcd;
use super::support::ports::free;
use super::support::process::{LONG, Launch, Process, eventually, eventually_some, find_program};

/// What is needed; `tools/fetch` builds each that it is asked for by name.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubectl"];
/// The token of somebody who may do everything.
const TOKEN: &str = "all";

/// One control plane. Dropping it ends it.
pub struct ControlPlane {
    _controllers: Process,
    api: Process,
    _etcd: Etcd,
    folder: TempDir,
}

impl ControlPlane {
    /// One with an empty cluster; `None`, with a word, where its programs are not there.
    pub async fn start() -> Option<ControlPlane> {
        if let Some(missing) = PROGRAMS.iter().find(|name| find_program(name).is_none()) {
            eprintln!("not run: there is no {missing}; tools/fetch {}", PROGRAMS.join(" "));
            return None;
        }
        let (etcd, folder, port) = (Etcd::start().await, tempfile::tempdir().unwrap(), free());
        let path = |name: &str| folder.path().join(name);
        fs::write(path("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(path("accounts.key"), key.serialize_pem()).unwrap();
        fs::write(path("accounts.pub"), key.public_key_pem()).unwrap();
        fs::write(path("config"), kubeconfig(port)).unwrap();
        let api = api_server(&etcd, port, folder.path()).start();
        let controllers = controller_manager(folder.path()).start();
        let mut cluster = ControlPlane { _controllers: controllers, api, _etcd: etcd, folder };
        eventually("the API server is ready", LONG * 2, || {
            assert!(cluster.api.is_running(), "{}", cluster.api.stderr());
            cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok()
        });
        Some(cluster)
    }

    /// A new namespace that takes only pods that meet this Pod Security Standard, and has its service account.
    pub fn namespace(&self, name: &str, standard: &str) {
        self.must(&["create", "namespace", name]);
        let modes = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}={standard}"));
        self.must(&["label", "namespace", name, &modes[0], &modes[1]]);
        eventually("the namespace has its account", LONG, || {
            self.kubectl(&["--namespace", name, "get", "serviceaccount", "default"]).is_ok()
        });
    }

    /// What kubectl says, or what it complains of.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.with_config(Launch::program("kubectl")).args(args).start().told()
    }

    /// The same, where it has to succeed.
    #[track_caller]
    pub fn must(&self, args: &[&str]) -> String {
        self.kubectl(args).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
    }

    /// What applying these manifests would come to, or came to: what kubectl said to both, and whether it was done.
    pub fn apply(&self, manifests: &str, args: &[&str]) -> (String, bool) {
        let file = self.folder.path().join("applied.yaml");
        fs::write(&file, manifests).unwrap();
        let kubectl = self.with_config(Launch::program("kubectl")).args(["apply", "--validate=strict"]).args(args);
        let mut kubectl = kubectl.arg("-f").arg(&file).start();
        let done = kubectl.wait(LONG * 2).success();
        (kubectl.stdout() + &kubectl.stderr(), done)
    }

    /// Helm, with this cluster.
    #[track_caller]
    pub fn helm(&self, args: &[&str]) -> String {
        let told = self.with_config(Launch::program("helm")).args(args).start().told();
        told.unwrap_or_else(|error| panic!("helm {}: {error}", args.join(" ")))
    }

    /// Objects as JSON.
    #[track_caller]
    pub fn get(&self, args: &[&str]) -> Value {
        let told = self.must(&[&["get", "--output=json"], args].concat());
        serde_json::from_str(&told).unwrap()
    }

    /// The pods with this label, as soon as there are so many.
    #[track_caller]
    pub fn pods(&self, namespace: &str, selector: &str, count: usize) -> Vec<Value> {
        eventually_some(&format!("{count} pods with {selector}"), LONG * 2, || {
            let found = self.get(&["--namespace", namespace, "pods", "--selector", selector]);
            found["items"].as_array().filter(|items| items.len() == count).cloned()
        })
    }

    /// The client's configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    fn with_config(&self, launch: Launch) -> Launch {
        launch.env("KUBECONFIG", self.config()).env("HOME", self.folder.path())
    }
}

fn api_server(etcd: &Etcd, port: u16, folder: &Path) -> Launch {
    let path = |name: &str| folder.join(name).display().to_string();
    Launch::program("kube-apiserver").args([
        format!("--etcd-servers={}", etcd.url()),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // Loopback is no address that pods could be told.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", path("certificates")),
        format!("--token-auth-file={}", path("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://cluster".to_owned(),
        format!("--service-account-key-file={}", path("accounts.pub")),
        format!("--service-account-signing-key-file={}", path("accounts.key")),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
    ])
}

fn controller_manager(folder: &Path) -> Launch {
    let path = |name: &str| folder.join(name).display().to_string();
    Launch::program("kube-controller-manager").args([
        format!("--kubeconfig={}", path("config")),
        format!("--service-account-private-key-file={}", path("accounts.key")),
        "--secure-port=0".to_owned(),
        "--leader-elect=false".to_owned(),
    ])
}

fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{ name: test, cluster: {{ server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true }} }}]\n\
         users: [{{ name: test, user: {{ token: {TOKEN} }} }}]\n\
         contexts: [{{ name: test, context: {{ cluster: test, user: test }} }}]\n"
    )
}
