//! A real Prometheus with short intervals, and what it is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::support::client;
use super::support::ports;
use super::support::process::{LONG, Launch, Process, eventually};
use super::{alerts, top};

/// The time between two scrapes, and between two answers of a query over time, in seconds.
const STEP: f64 = 0.5;

/// A running Prometheus. Its scrapes carry `namespace="shop"`.
pub struct Prometheus {
    address: SocketAddr,
    process: Process,
    began: f64,
    _folder: tempfile::TempDir,
}

/// One series of an answer, with every value that it had.
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub values: Vec<f64>,
}

impl Prometheus {
    /// Starts one that scrapes these admin sides twice a second, with the project's rules; waits until it has scraped all.
    #[track_caller]
    pub fn start(jobs: &[(&str, &[SocketAddr])]) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            String::from("global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s }\n");
        let _ = writeln!(config, "rule_files: [\"{}\"]\nscrape_configs:", top().join(alerts::PATH).display());
        for (job, targets) in jobs {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let _ = writeln!(config, "  - job_name: {job}");
            let _ = writeln!(config, "    static_configs: [{{ targets: {targets:?}, labels: {{ namespace: shop }} }}]");
        }
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let address = ports::free_address();
        let process = Launch::program("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .start();
        let began = now();
        let mut prometheus = Prometheus { address, process, began, _folder: folder };
        eventually("Prometheus is ready", LONG, || {
            assert!(prometheus.process.is_running(), "{}", prometheus.process.stderr());
            client::get(address, "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        let count: usize = jobs.iter().map(|(_, targets)| targets.len()).sum();
        prometheus.await_some("every process is scraped", &format!("count(up == 1) == {count}"));
        prometheus
    }

    /// What it says to a query now.
    #[track_caller]
    pub fn ask(&self, query: &str) -> Vec<Series> {
        self.post("/api/v1/query", &[("query", query)])
    }

    /// What it says to a query at every half second since it was started.
    #[track_caller]
    pub fn ask_over_all(&self, query: &str) -> Vec<Series> {
        // The last step is to see the last scrape.
        let (start, end) = (self.began.to_string(), (now() + STEP).to_string());
        self.post(
            "/api/v1/query_range",
            &[("query", query), ("start", &start), ("end", &end), ("step", &STEP.to_string())],
        )
    }

    /// Waits until a query has an answer with a value other than 0.
    #[track_caller]
    pub fn await_some(&self, what: &str, query: &str) {
        let some = || self.ask(query).iter().any(|series| series.values.iter().any(|value| *value != 0.0));
        eventually(&format!("Prometheus sees that {what}: {query}"), LONG, some);
    }

    /// Its rules, as it sees them.
    #[track_caller]
    pub fn rules(&self) -> Vec<Value> {
        let answer = client::get(self.address, "/api/v1/rules").unwrap().json();
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    #[track_caller]
    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Vec<Series> {
        let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = client::request(self.address, "POST", path, &kind, form.join("&").as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{fields:?}: {}", answer.text());
        let answer = answer.json();
        answer["data"]["result"]
            .as_array()
            .unwrap_or_else(|| panic!("no vector: {fields:?}"))
            .iter()
            .map(series)
            .collect()
    }
}

fn series(json: &Value) -> Series {
    let labels = json["metric"].as_object().unwrap().iter();
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    let one = json.get("value").into_iter();
    let values = one.chain(json["values"].as_array().into_iter().flatten());
    Series { labels, values: values.filter_map(|pair| pair[1].as_str()?.parse().ok()).collect() }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02X}");
        text
    })
}
