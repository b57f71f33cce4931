//! What the user says, checked: each of it becomes a name in Kubernetes, and a bad one would be refused there, later.

/// Which sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Beside a writer.
    Stamp,
    /// Beside a target.
    Guard,
}

impl Role {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Stamp => "stamp",
            Role::Guard => "guard",
        }
    }
}

/// What is added, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which sidecar.
    pub role: Role,
    /// The ConfigMap with the key `epochgate.yaml`.
    pub config_map: String,
    /// The image.
    pub image: String,
    /// Secrets by the folder that each is mounted at.
    pub secrets: Vec<(String, String)>,
    /// The claim of a guard's volume; none: what it remembers ends with its pod.
    pub state_claim: Option<String>,
    /// Where metrics and health are served.
    pub admin_port: u16,
    /// Ports of listeners, by name: for a Service that names its target port.
    pub ports: Vec<(String, u16)>,
    /// Whether it is a native sidecar.
    pub native: bool,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit(pub String);

/// The name of the port of the admin side. In a pod of somebody else it is not to collide with one of its own.
pub(super) const ADMIN_PORT: &str = "eg-admin";
/// What the names of volumes begin with.
pub(super) const VOLUME: &str = "epochgate-";

/// The image of this version.
pub fn default_image() -> String {
    format!("epochgate:{}", env!("CARGO_PKG_VERSION"))
}

impl Settings {
    /// What contradicts itself: a claim beside a stamp, a folder or a port given twice.
    pub fn check(&self) -> Result<(), Unfit> {
        if self.role == Role::Stamp && self.state_claim.is_some() {
            return Err(Unfit("--state-claim is for guards: a stamp keeps nothing".to_owned()));
        }
        let mut folders = vec!["config", "state"];
        for (folder, _) in &self.secrets {
            if folders.contains(&folder.as_str()) {
                let why = if ["config", "state"].contains(&folder.as_str()) {
                    "is epochgate's own"
                } else {
                    "is given twice"
                };
                return Err(Unfit(format!("--secret {folder}=…: the folder {why}; take another name")));
            }
            folders.push(folder);
        }
        let mut taken = vec![(ADMIN_PORT, self.admin_port)];
        for (name, port) in &self.ports {
            if let Some((other, _)) = taken.iter().find(|(other, number)| other == name || number == port) {
                return Err(Unfit(format!("--port {name}={port} has the name or the number of {other}; take another")));
            }
            taken.push((name, *port));
        }
        Ok(())
    }
}

/// A name of an object: what a DNS name may be.
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| !part.is_empty() && is_label(part, 253))
}

/// A name of a part of an object: one label of a DNS name, of at most so many bytes.
pub fn is_label(text: &str, longest: usize) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=longest).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
