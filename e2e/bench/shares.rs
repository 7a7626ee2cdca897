//! What of a pod's start is whose: seen by a watch, and told by the node plugin.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use aldaas_e2e::{Site, path};

use crate::clock::now;

/// When pods were given a node. Their condition says it in whole seconds only.
pub struct Scheduled {
    watch: Child,
    seen: Arc<Mutex<HashMap<String, f64>>>,
}

impl Scheduled {
    /// Watches the pods of a namespace until dropped.
    pub fn watch(namespace: &str) -> Self {
        let columns = "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName";
        let mut watch = Command::new("kubectl")
            .args(["get", "pods", "-n", namespace, "--watch", "--no-headers", "-o", columns])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run kubectl");
        let lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
        let seen = Arc::<Mutex<HashMap<String, f64>>>::default();
        let into = seen.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut words = line.split_whitespace();
                if let (Some(name), Some(node)) = (words.next(), words.next())
                    && node != "<none>"
                {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry(name.to_owned()).or_insert_with(now);
                }
            }
        });
        // Until it watches.
        std::thread::sleep(std::time::Duration::from_millis(500));
        Self { watch, seen }
    }

    /// When this pod was, in milliseconds since the epoch.
    pub fn when(&self, pod: &str) -> Option<f64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(pod).copied()
    }
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}

/// How long the steps of publishing took, as the node plugin counts: seconds and number, by step.
#[derive(Default)]
pub struct Published(HashMap<String, (f64, f64)>);

impl Published {
    /// All since the plugin began.
    pub fn so_far(site: &Site) -> Self {
        let nodes = site.kube.list(&path("nodes", "", ""));
        let mut steps = HashMap::<String, (f64, f64)>::new();
        for node in &nodes {
            let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
            let address =
                addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
            let url = format!("http://{}:9808/metrics", address.unwrap_or_default());
            let out = Command::new("curl").args(["-sS", "--fail", "--max-time", "10", &url]).output();
            let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
            for line in text.lines() {
                if let Some((step, is_sum, value)) = read(line) {
                    let (sum, count) = steps.entry(step).or_default();
                    *(if is_sum { sum } else { count }) += value;
                }
            }
        }
        Self(steps)
    }

    /// What came after that.
    pub fn since(mut self, before: &Self) -> Self {
        for (step, (sum, count)) in &mut self.0 {
            let (earlier, times) = before.0.get(step).copied().unwrap_or_default();
            *sum -= earlier;
            *count -= times;
        }
        self
    }

    /// Seconds that one took.
    pub fn mean(&self, step: &str) -> f64 {
        self.0.get(step).map_or(0.0, |(sum, count)| sum / count.max(1.0))
    }
}

/// A line of a publish's steps that succeeded: which step, whether it is the sum or the number, and that.
fn read(line: &str) -> Option<(String, bool, f64)> {
    let rest = line.strip_prefix("aldaas_step_duration_seconds_")?;
    let (kind, rest) = rest.split_once('{')?;
    let (labels, value) = rest.split_once("} ")?;
    let is = |label: &str| labels.split(',').any(|one| one == label);
    if !matches!(kind, "sum" | "count") || !is(r#"operation="publish""#) || !is(r#"outcome="ok""#) {
        return None;
    }
    let step =
        labels.split(',').find_map(|one| one.strip_prefix("step=")?.strip_prefix('"')?.strip_suffix('"'))?;
    Some((step.to_owned(), kind == "sum", value.trim().parse().ok()?))
}
