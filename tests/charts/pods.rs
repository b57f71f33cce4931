//! What is in rendered manifests: objects, pods and the container of ours, and whether they are of one piece.

use serde_json::Value;

use super::yaml;

/// Everything that a release would apply.
pub struct Manifests(pub Vec<Value>);

/// A pod, or the template of pods, and the object that makes them.
pub struct Pod<'a> {
    pub object: &'a Value,
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

impl Manifests {
    #[track_caller]
    pub fn read(text: &str) -> Manifests {
        Manifests(yaml::documents(text))
    }

    pub fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of this kind and name.
    #[track_caller]
    pub fn named(&self, kind: &'static str, name: &str) -> &Value {
        let found = self.of_kind(kind).find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    pub fn pods(&self) -> Vec<Pod<'_>> {
        let pods = self.0.iter().filter_map(|object| {
            let holder = match object["kind"].as_str()? {
                "Pod" => object,
                "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => &object["spec"]["template"],
                "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
                _ => return None,
            };
            Some(Pod { object, metadata: &holder["metadata"], spec: &holder["spec"] })
        });
        pods.collect()
    }

    /// The pods that are no tests.
    pub fn serving(&self) -> Vec<Pod<'_>> {
        self.pods().into_iter().filter(|pod| !pod.is_test()).collect()
    }

    /// Every epochgate.yaml, with the name of its ConfigMap.
    pub fn configurations(&self) -> Vec<(&str, &str)> {
        let maps = self.of_kind("ConfigMap");
        maps.filter_map(|map| Some((map["metadata"]["name"].as_str()?, map["data"]["epochgate.yaml"].as_str()?)))
            .collect()
    }

    /// What refers to something finds it: selectors pods, names of ports ports, volumes ConfigMaps.
    #[track_caller]
    pub fn assert_of_one_piece(&self, what: &str) {
        for service in self.of_kind("Service") {
            let pods = self.selected(&service["spec"]["selector"], what);
            for port in list(&service["spec"]["ports"]) {
                let to = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
                let has = pods.iter().all(|pod| pod.has_port(to));
                assert!(has, "{what}: {} leads to no port: {port}", name(service));
            }
        }
        for monitor in self.of_kind("PodMonitor") {
            let pods = self.selected(&monitor["spec"]["selector"]["matchLabels"], what);
            for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
                assert!(pods.iter().all(|pod| pod.has_port(&endpoint["port"])), "{what}: {endpoint}");
            }
        }
        for monitor in self.of_kind("ServiceMonitor") {
            let wanted = &monitor["spec"]["selector"]["matchLabels"];
            let services: Vec<_> =
                self.of_kind("Service").filter(|service| has_labels(&service["metadata"]["labels"], wanted)).collect();
            assert_eq!(services.len(), 1, "{what}: {} finds one Service", name(monitor));
            let ports = list(&services[0]["spec"]["ports"]);
            for endpoint in list(&monitor["spec"]["endpoints"]) {
                assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{what}: {endpoint}");
            }
        }
        for budget in self.of_kind("PodDisruptionBudget") {
            self.selected(&budget["spec"]["selector"]["matchLabels"], what);
        }
        for pod in self.pods() {
            pod.assert_of_one_piece(self, what);
        }
    }

    #[track_caller]
    fn selected(&self, wanted: &Value, what: &str) -> Vec<Pod<'_>> {
        assert!(wanted.as_object().is_some_and(|labels| !labels.is_empty()), "{what}: a selector of everything");
        let mut pods = self.serving();
        pods.retain(|pod| has_labels(&pod.metadata["labels"], wanted));
        assert!(!pods.is_empty(), "{what}: nothing has the labels {wanted}");
        pods
    }
}

impl Pod<'_> {
    pub fn is_test(&self) -> bool {
        self.object["metadata"]["annotations"]["helm.sh/hook"] == "test"
    }

    /// Our containers, sidecars among them.
    pub fn ours(&self) -> Vec<&Value> {
        let mut all = self.containers();
        all.retain(|container| container["name"] == "epochgate" || self.is_test());
        all
    }

    pub fn containers(&self) -> Vec<&Value> {
        list(&self.spec["initContainers"]).iter().chain(list(&self.spec["containers"])).collect()
    }

    fn has_port(&self, wanted: &Value) -> bool {
        self.containers().iter().any(|container| {
            list(&container["ports"]).iter().any(|port| port["name"] == *wanted || port["containerPort"] == *wanted)
        })
    }

    #[track_caller]
    fn assert_of_one_piece(&self, all: &Manifests, what: &str) {
        let labels = &self.object["spec"]["selector"]["matchLabels"];
        assert!(labels.is_null() || has_labels(&self.metadata["labels"], labels), "{what}: it does not find its pods");
        let mut volumes: Vec<&Value> = list(&self.spec["volumes"]).iter().map(|volume| &volume["name"]).collect();
        for volume in list(&self.spec["volumes"]) {
            if let Some(map) = volume["configMap"]["name"].as_str().filter(|_| volume["name"] == "epochgate-config") {
                all.named("ConfigMap", map);
            }
        }
        let claims = list(&self.object["spec"]["volumeClaimTemplates"]);
        volumes.extend(claims.iter().map(|claim| &claim["metadata"]["name"]));
        let count = volumes.len();
        volumes.sort_by_key(|name| name.to_string());
        volumes.dedup();
        assert_eq!(volumes.len(), count, "{what}: two volumes of one name");
        for container in self.containers() {
            for mount in list(&container["volumeMounts"]) {
                assert!(volumes.contains(&&mount["name"]), "{what}: there is no volume {}", mount["name"]);
                assert!(mount["subPath"].is_null(), "{what}: what is mounted by subPath is never renewed");
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let port = &container[probe]["httpGet"]["port"];
                assert!(port.is_null() || self.has_port(port), "{what}: {probe} asks no port of it");
            }
        }
    }
}

/// Whether labels have all that are wanted.
pub fn has_labels(labels: &Value, wanted: &Value) -> bool {
    wanted.as_object().is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}

/// A list, also one that is not there.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What an object is called, for messages.
pub fn name(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or("?"), object["metadata"]["name"].as_str().unwrap_or("?"))
}
