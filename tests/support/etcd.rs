//! A real etcd for a test: on free ports of 127.0.0.1, with a data directory of its own, ended with the test.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::process::{LONG, Launch, await_standstill, program};

/// How long an etcd may take to answer; a slow machine needs a part of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The etcd to test with: `EPOCHGATE_ETCD`, else the one that `make test` fetched, else the one on the PATH.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("EPOCHGATE_ETCD") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "EPOCHGATE_ETCD is {}, which is no file", named.display());
        return named;
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/etcd");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("etcd"));
    std::iter::once(fetched).chain(on_path).find(|candidate| candidate.is_file()).unwrap_or_else(|| {
        panic!("no etcd to test with: `make test` fetches it into .tools/bin, or set EPOCHGATE_ETCD to the binary")
    })
}

/// What is not the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Serve TLS only, and only to clients with a certificate: the folder holds `ca.pem`, `server.pem`, `server.key`.
    pub tls: Option<PathBuf>,
    /// More flags.
    pub flags: Vec<String>,
    /// Where each member is to live; 127.0.0.1 where there are none.
    pub hosts: Vec<Host>,
}

/// Where something lives.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its address.
    pub ip: IpAddr,
    /// The network namespace that has the address, where it is not the caller's.
    pub namespace: Option<PathBuf>,
}

impl Default for Host {
    /// Here.
    fn default() -> Host {
        Host { ip: Ipv4Addr::LOCALHOST.into(), namespace: None }
    }
}

/// One etcd process. Dropping it ends it.
pub struct Etcd {
    child: Option<Child>,
    flags: Vec<String>,
    folder: TempDir,
    url: String,
    health: SocketAddr,
    host: Host,
    /// What a restored member has to be told anew.
    identity: Vec<String>,
}

impl Etcd {
    /// A cluster of one.
    pub async fn start() -> Etcd {
        Etcd::start_with(&Options::default()).await
    }

    /// A cluster of one with options.
    pub async fn start_with(options: &Options) -> Etcd {
        cluster(1, options).await.pop().unwrap()
    }

    /// The client URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// SIGSTOP: it keeps its connections and says nothing. Returns when every thread of it has stopped.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        await_standstill(self.child.as_ref().expect("it runs").id());
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Deletes all that it knows; only after [`Etcd::kill`].
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "it still runs");
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    /// Starts again after [`Etcd::kill`], at the same address, and waits until it serves.
    pub async fn restart(&mut self) {
        self.begin_again();
        self.await_service().await;
    }

    /// The first half of [`Etcd::restart`]: a member serves only when others do.
    pub fn begin_again(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Waits until it serves.
    pub async fn await_service(&mut self) {
        assert!(self.serves().await, "etcd ended at its start: {}", self.log());
    }

    /// Whether it was started, and not killed since.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Where it lives.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Writes all that it knows to a file; false where it does not answer.
    pub fn snapshot(&self, to: &Path) -> bool {
        let etcdctl = Launch::program("etcdctl").args(["--endpoints", &self.url, "--command-timeout=5s"]);
        etcdctl.args(["snapshot", "save"]).arg(to).run(LONG).wait(LONG).success()
    }

    /// Gives it the memory of an earlier moment; only after [`Etcd::wipe`], and the same to every member.
    #[track_caller]
    pub fn restore(&self, from: &Path) {
        let data = self.folder.path().join("data");
        let etcdctl = Launch::program("etcdctl").args(["snapshot", "restore"]).arg(from).args(&self.identity);
        let mut restored = etcdctl.arg("--data-dir").arg(&data).run(LONG);
        assert!(restored.wait(LONG).success(), "{}", restored.recent());
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = match &self.host.namespace {
            None => Command::new(binary()),
            Some(namespace) => {
                let mut command = Command::new(program("nsenter"));
                command.arg(format!("--net={}", namespace.display())).arg("--").arg(binary());
                command
            }
        };
        command.args(&self.flags).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // What the environment says about another etcd is not meant for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", binary().display())));
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has a leader and answers; false where it ended instead.
    async fn serves(&mut self) -> bool {
        let began = Instant::now();
        loop {
            if self.child.as_mut().expect("started").try_wait().unwrap().is_some() {
                return false;
            }
            if healthy(self.health).await {
                return true;
            }
            assert!(began.elapsed() < PATIENCE, "etcd does not serve: {}", self.log());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster of several members, all of which serve when this returns.
pub async fn cluster(members: usize, options: &Options) -> Vec<Etcd> {
    // The ports are free when they are chosen; another process may take one before etcd does.
    for _ in 0..10 {
        let mut cluster = prepare(members, options);
        cluster.iter_mut().for_each(Etcd::spawn);
        let mut all = true;
        for member in &mut cluster {
            all &= member.serves().await;
        }
        if all {
            return cluster;
        }
        let log = cluster.iter().map(Etcd::log).collect::<String>();
        assert!(log.contains("address already in use"), "etcd ended at its start: {log}");
    }
    panic!("ten times in a row another process took one of the ports");
}

fn prepare(members: usize, options: &Options) -> Vec<Etcd> {
    let ports = free_ports(3 * members);
    let host = |member: usize| options.hosts.get(member).cloned().unwrap_or_default();
    let peers: Vec<String> =
        ports.chunks(3).enumerate().map(|(i, ports)| format!("http://{}:{}", host(i).ip, ports[1])).collect();
    let initial: Vec<String> = peers.iter().enumerate().map(|(i, peer)| format!("m{i}={peer}")).collect();
    let member = |(i, ports): (usize, &[u16])| {
        let folder = tempfile::tempdir().unwrap();
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let host = host(i);
        let url = format!("{scheme}://{}:{}", host.ip, ports[0]);
        let data = folder.path().join("data").display().to_string();
        let health = SocketAddr::new(host.ip, ports[2]);
        let pairs = [
            ("--name", format!("m{i}")),
            ("--data-dir", data),
            ("--listen-client-urls", url.clone()),
            ("--advertise-client-urls", url.clone()),
            ("--listen-peer-urls", peers[i].clone()),
            ("--initial-advertise-peer-urls", peers[i].clone()),
            ("--initial-cluster", initial.join(",")),
            ("--listen-metrics-urls", format!("http://{health}")),
            // Faster than the defaults: a lease may be as short as a second.
            ("--heartbeat-interval", "50".into()),
            ("--election-timeout", "500".into()),
            ("--logger", "zap".into()),
            ("--log-level", "warn".into()),
        ];
        let mut flags: Vec<String> = pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        if let Some(tls) = &options.tls {
            let file = |name: &str| tls.join(name).display().to_string();
            flags.push("--client-cert-auth".into());
            for (flag, name) in
                [("--trusted-ca-file", "ca.pem"), ("--cert-file", "server.pem"), ("--key-file", "server.key")]
            {
                flags.extend([flag.into(), file(name)]);
            }
        }
        flags.extend(options.flags.iter().cloned());
        let identity = [
            ("--name", format!("m{i}")),
            ("--initial-cluster", initial.join(",")),
            ("--initial-advertise-peer-urls", peers[i].clone()),
        ];
        let identity = identity.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Etcd { child: None, flags, folder, url, health, host, identity }
    };
    ports.chunks(3).enumerate().map(member).collect()
}

/// Writes an authority, and a certificate and key for each name (its common name), into `folder`: a server's and a
/// client's at once.
pub fn certificates(folder: &Path, authority: &str, names: &[&str]) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, authority);
    std::fs::write(folder.join(format!("{authority}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, *name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Ports that nobody listens on at the moment, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Whether etcd's own health page says so, which takes a leader.
async fn healthy(page: SocketAddr) -> bool {
    let ask = async {
        let mut connection = tokio::net::TcpStream::connect(page).await.ok()?;
        connection.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).contains("\"true\""))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.ok().flatten().unwrap_or(false)
}
