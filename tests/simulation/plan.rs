//! What the world of one seed is like: how many of everything, and which times they are configured with.

use std::path::Path;
use std::time::Duration;

use epochgate::config::{self, Config, Surroundings};

use crate::dice::Dice;
use crate::network::SLOWEST;

/// The sizes of one world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub writers: u8,
    pub targets: u8,
    /// How many doors share each target; one: it is the sole one.
    pub doors: u8,
    pub resources: Vec<String>,
    /// Worker threads of a process.
    pub workers: usize,
    /// How many operations a service writes at a time.
    pub at_once: usize,
    /// How long a service waits between two.
    pub pause: (Duration, Duration),
    pub quarantine: Duration,
    pub response_timeout: Duration,
    pub send_timeout: Duration,
    /// Whether services speak HTTP/2 too.
    pub http2: bool,
    /// Whether guards close without a session.
    pub closes: bool,
    /// Whether writers go on past their deadline while the coordinator is away.
    pub keeps_writing: bool,
    /// Whether what is not armed is refused rather than held.
    pub refuse_unarmed: bool,
    /// Whether guards are replaced by others; then the coordinator keeps its memory.
    pub replaced: bool,
    /// How many of a hundred connections are sent again by a middlebox.
    pub taping: u64,
    /// How many failovers there are to be at least.
    pub failovers: usize,
    /// Whether the target exceeds the bound that DESIGN 3.8 sets it.
    pub exceeds: bool,
}

impl Plan {
    pub fn of(seed: u64, failovers: usize) -> Plan {
        let mut dice = Dice::of(seed, "plan");
        let response_timeout = dice.millis(600, 1_500);
        let send_timeout = dice.millis(300, 700);
        let least = response_timeout + send_timeout + SLOWEST + Duration::from_millis(200);
        let resources = if dice.percent(25) { 2 } else { 1 };
        let mut plan = Plan {
            seed,
            writers: if dice.percent(35) { 3 } else { 2 },
            targets: if dice.percent(20) { 2 } else { 1 },
            doors: if dice.percent(30) { 2 + u8::from(dice.percent(30)) } else { 1 },
            resources: (0..resources).map(|number| format!("orders/{number}")).collect(),
            workers: if dice.percent(40) { 2 } else { 1 },
            at_once: dice.index(2) + 1,
            pause: (Duration::from_millis(10), dice.millis(150, 700)),
            quarantine: least + dice.millis(0, 1_000),
            response_timeout,
            send_timeout,
            http2: dice.percent(25),
            closes: dice.percent(30),
            keeps_writing: dice.percent(15),
            refuse_unarmed: dice.percent(20),
            replaced: false,
            taping: if dice.percent(60) { 10 } else { 0 },
            failovers,
            exceeds: false,
        };
        plan.replaced = dice.percent(40);
        plan
    }

    /// How long after its connection's end the target may go on with a write: a little less than the guards wait by
    /// clocks that go too fast.
    pub fn over_within(&self) -> Duration {
        self.quarantine.mul_f64(0.98).saturating_sub(Duration::from_millis(5))
    }

    /// Where a stamping sidecar listens for writes to this target.
    pub fn stamp_port(&self, target: u8) -> u16 {
        8080 + u16::from(target)
    }

    /// The name under which a target's door is dialled.
    pub fn door(&self, target: u8) -> String {
        format!("door-{target}")
    }

    /// A guard's configuration.
    pub fn guard(&self, number: u8, target: u8) -> Config {
        let doors = match (self.doors > 1, self.closes) {
            (true, _) => "doors: shared",
            (false, true) => "on_coordinator_loss: close",
            (false, false) => "on_coordinator_loss: keep",
        };
        self.config(
            &format!("guard-{number}"),
            &format!(
                "  - {{ name: guard, role: guard, protocol: http, listen: 127.0.0.1:8080, target: db-{target}, \
             {doors}, {}, {} }}\n",
                self.upstream(&format!("target-{target}:9000"), self.response_timeout, "http1"),
                RULES,
            ),
        )
    }

    /// A stamping sidecar's configuration.
    pub fn stamp(&self, number: u8) -> Config {
        let until_armed = if self.refuse_unarmed { "refuse" } else { "hold" };
        let loss = if self.keeps_writing { "keep" } else { "stop" };
        let patience = self.response_timeout + self.quarantine + Duration::from_secs(2);
        let listeners: String = (1..=self.targets)
            .map(|target| {
                format!(
                    "  - {{ name: stamp-{target}, role: stamp, protocol: http, listen: 127.0.0.1:{}, \
                     advertise: http://writer-{number}, until_armed: {until_armed}, on_coordinator_loss: {loss}, {}, {} }}\n",
                    self.stamp_port(target),
                    self.upstream(&format!("{}:8080", self.door(target)), patience, "same"),
                    RULES,
                )
            })
            .collect();
        self.config(&format!("stamp-{number}"), &listeners)
    }

    fn upstream(&self, authority: &str, response: Duration, version: &str) -> String {
        format!(
            "upstream: {{ url: \"http://{authority}\", version: {version}, connect_timeout: 500ms, \
             response_timeout: {}ms, send_timeout: {}ms, idle_timeout: 3s }}",
            response.as_millis(),
            self.send_timeout.as_millis()
        )
    }

    fn config(&self, id: &str, listeners: &str) -> Config {
        let resources: String = self.resources.iter().map(|name| format!("  \"{name}\": {{}}\n")).collect();
        let text = format!(
            "id: {id}\nstate_dir: /state\n\
             coordinator: {{ etcd: {{ endpoints: [\"http://coordinator:2379\"] }}, lease_ttl: 2s, \
             request_timeout: 400ms, verify_every: 500ms }}\n\
             clock: {{ max_drift: 0.01, margin: 100ms }}\n\
             resources:\n{resources}\
             listeners:\n{listeners}\
             drain: {{ timeout: 800ms, quarantine: {}ms }}\n\
             hold: {{ requests: 200, bytes: 1MiB, timeout: 4s }}\n\
             step_down: {{ timeout: 1s, pause: 2s }}\n\
             shutdown: {{ grace: 3s }}\n\
             admin: {{ listen: null }}\n\
             workers: {}\n",
            self.quarantine.as_millis(),
            self.workers
        );
        let surroundings =
            Surroundings { host_name: id.to_owned(), state_directory: None, root: false, home: None, cores: 1 };
        match config::load_in(
            Some((Path::new("simulated.yaml"), &text)),
            &config::Overrides::default(),
            None,
            &surroundings,
        ) {
            Ok(loaded) => loaded.config,
            Err(problems) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                panic!("the plan's configuration is refused:\n{}\n{text}", problems.join("\n"));
            }
        }
    }
}

const RULES: &str = "rules: [ { path: \"/orders/{shard}/**\", resource: \"orders/{shard}\" } ]";
