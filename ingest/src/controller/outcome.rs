//! How a Job ended: from the Job, its pods, and what they said.

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use aldaas_api::event::exit;

use super::model::Outcome;
use super::names::CONTAINER;
use super::progress::Said;

/// How it stands.
///
/// Exit code and last event decide whether a failure may pass: what the program itself said is final only if it said so. What
/// befell the pod from outside (evicted, lost, out of memory, out of time) always may. That it has done everything is the last that
/// the program says, and nothing else in its container can say it.
pub fn outcome(job: &batch::Job, pods: &[&Pod], said: impl Fn(&str) -> Option<Said>) -> Outcome {
    let Some(pod) = newest(pods) else {
        return match failed(job) {
            Some(why) => Outcome::MayPass(why),
            None => Outcome::Running(None),
        };
    };
    let uid = pod.uid().unwrap_or_default();
    let outcome = match ended(pod) {
        Some(End::Exit(code, reason)) => by_exit(&uid, code, &reason, said(&uid)),
        Some(End::Outside(why)) => Outcome::MayPass(why),
        None => match (said(&uid).and_then(|said| said.manifest), failed(job)) {
            // Its last words: a node takes up to a second to tell that a container has ended.
            (Some(manifest), _) => Outcome::Done { pod_uid: uid, manifest: Box::new(manifest) },
            (None, Some(why)) => Outcome::MayPass(why),
            (None, None) => Outcome::Running(Some(uid)),
        },
    };
    match outcome {
        Outcome::Done { pod_uid, mut manifest } => {
            manifest.engine.image_digest = digest(pod);
            Outcome::Done { pod_uid, manifest }
        }
        other => other,
    }
}

/// The pod that counts: with a backoff limit of 0 there is a second one only if the first was lost.
pub fn newest<'a>(pods: &[&'a Pod]) -> Option<&'a Pod> {
    pods.iter().copied().max_by_key(|pod| pod.creation_timestamp().map(|at| at.0))
}

/// Whether its container was started, so that it may have said something.
pub fn has_started(pod: &Pod) -> bool {
    let state = main(pod).and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// Whether nothing of it runs any more.
pub fn is_over(pod: &Pod) -> bool {
    ended(pod).is_some()
}

/// Why it does not run yet, where the cluster says so.
pub fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Pending") {
        return None;
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let states = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let told = states.filter(|waiting| {
        !matches!(waiting.reason.as_deref(), Some("PodInitializing" | "ContainerCreating"))
    });
    let container = told.filter_map(|waiting| {
        let reason = waiting.reason.clone()?;
        Some(match &waiting.message {
            Some(message) => format!("its pod waits: {reason}: {message}"),
            None => format!("its pod waits: {reason}"),
        })
    });
    let unscheduled =
        status.conditions.iter().flatten().filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    let no_node = unscheduled.filter_map(|c| Some(format!("no node takes its pod: {}", c.message.as_ref()?)));
    container.chain(no_node).next()
}

/// Digest of the image that its container ran: what the node pulled, or where the image was only ever loaded, that of its
/// configuration.
fn digest(pod: &Pod) -> Option<String> {
    let id = main(pod)?.image_id.as_str();
    let digest = id.rsplit_once('@').map_or(id, |(_, digest)| digest);
    let digest = digest.rsplit_once("://").map_or(digest, |(_, digest)| digest);
    digest.starts_with("sha256:").then(|| digest.to_owned())
}

enum End {
    Exit(i32, String),
    Outside(String),
}

fn main(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    statuses.into_iter().find(|status| status.name == CONTAINER)
}

fn ended(pod: &Pod) -> Option<End> {
    let status = pod.status.as_ref()?;
    // Evicted, or its node is gone: what became of the container nobody says.
    if let Some(reason) = status.reason.as_deref().filter(|_| status.phase.as_deref() == Some("Failed")) {
        let message = status.message.as_deref().unwrap_or_default();
        return Some(End::Outside(format!("its pod was taken away: {reason} {message}").trim().to_owned()));
    }
    let terminated = |status: &ContainerStatus| status.state.as_ref()?.terminated.clone();
    if let Some(end) = main(pod).and_then(terminated) {
        return Some(End::Exit(end.exit_code, end.reason.unwrap_or_default()));
    }
    let mut init = status.init_container_statuses.iter().flatten();
    if let Some(end) = init.find_map(|status| terminated(status).filter(|end| end.exit_code != 0)) {
        let message = end.message.unwrap_or_default();
        return Some(End::Outside(format!(
            "aldaas-restore could not be laid into its pod (exit code {}) {message}",
            end.exit_code
        )));
    }
    match status.phase.as_deref() {
        Some("Failed") => Some(End::Outside("its pod failed".to_owned())),
        _ => None,
    }
}

fn by_exit(uid: &str, code: i32, reason: &str, said: Option<Said>) -> Outcome {
    if reason == "OOMKilled" {
        return Outcome::MayPass(
            "it was killed for want of memory: raise spec.engine.resources.limits.memory".to_owned(),
        );
    }
    let Some(said) = said.filter(|said| said.ended) else { return Outcome::Running(Some(uid.to_owned())) };
    if let (0, Some(manifest)) = (code, said.manifest) {
        return Outcome::Done { pod_uid: uid.to_owned(), manifest: Box::new(manifest) };
    }
    let last_words = said.last_words.map_or_else(String::new, |words| format!(": {words}"));
    match (said.failed, code) {
        (Some((step, reason, true)), _) => Outcome::MayPass(format!("{step}: {reason}")),
        (Some((step, reason, false)), code) if code == i32::from(exit::TEMPORARY) => {
            Outcome::MayPass(format!("{step}: {reason}"))
        }
        (Some((step, reason, false)), _) => Outcome::Final(format!("{step}: {reason}")),
        (None, 0) => Outcome::MayPass("it ended well, but its log with what it did can't be read".to_owned()),
        // Nothing of the image can be run, or aldaas-restore does not know what it was told to do.
        (None, 1 | 2 | 126 | 127 | 128) => Outcome::Final(format!(
            "aldaas-restore did not get to work (exit code {code} {reason}){last_words}"
        )),
        (None, _) => {
            Outcome::MayPass(format!("aldaas-restore was ended from outside (exit code {code}){last_words}"))
        }
    }
}

/// Why the Job failed, if it did.
fn failed(job: &batch::Job) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let failed = conditions.into_iter().find(|c| c.type_ == "Failed" && c.status == "True")?;
    Some(match failed.reason.as_deref() {
        Some("DeadlineExceeded") => {
            "its Job took longer than it may, with all waiting for a node and for images".to_owned()
        }
        _ => format!("its pod is gone: {}", failed.message.as_deref().unwrap_or("the Job failed")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(lines: &[&str]) -> Said {
        let mut said = Said::default();
        for line in lines {
            said.line(line);
        }
        said.ended = true;
        said
    }

    fn of(status: Value, lines: &[&str]) -> Outcome {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "uid": "1" }, "status": status })).unwrap();
        outcome(&batch::Job::default(), &[&pod], |_| Some(said(lines)))
    }

    fn exit(code: i32, reason: &str) -> Value {
        let terminated = json!({ "exitCode": code, "reason": reason });
        json!({ "phase": "Failed", "containerStatuses": [
            { "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": terminated } }
        ]})
    }

    const BAD: &str =
        r#"{"event":"failed","step":"restore","reason":"the dump is cut short","temporary":false}"#;
    const AWAY: &str = r#"{"event":"failed","step":"open","reason":"S3 is away","temporary":true}"#;

    #[test]
    fn what_failed_for_good_is_told_from_what_may_pass() {
        let may_pass = |status, lines: &[&str]| match of(status, lines) {
            Outcome::MayPass(_) => true,
            Outcome::Final(_) => false,
            other => panic!("{other:?}"),
        };
        assert!(!may_pass(exit(1, "Error"), &[BAD]));
        assert!(may_pass(exit(75, "Error"), &[AWAY]));
        assert!(may_pass(exit(137, "Error"), &[]));
        assert!(may_pass(exit(137, "OOMKilled"), &[]));
        assert!(may_pass(exit(0, "Completed"), &["no word of it"]), "done, but what?");
        assert!(!may_pass(exit(2, "Error"), &["error: unexpected argument"]));
        assert!(may_pass(json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" }), &[]));
        assert_eq!(of(exit(1, "Error"), &[BAD]), Outcome::Final("restore: the dump is cut short".into()));
    }

    #[test]
    fn a_log_that_was_not_read_to_its_end_is_waited_for() {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "uid": "1" }, "status": exit(1, "Error") }))
                .unwrap();
        for unread in [None, Some(Said::default())] {
            let outcome = outcome(&batch::Job::default(), &[&pod], |_| unread.clone());
            assert_eq!(outcome, Outcome::Running(Some("1".into())));
        }
    }

    #[test]
    fn what_is_done_is_done_before_the_node_tells_that_it_has_ended() {
        let manifest = json!({
            "database": "orders", "engine": { "name": "postgres", "version": "15.8" },
            "source": { "location": "s3://backup/1", "etag": null, "size": 1, "sha256": "", "format": "" },
            "contents": { "tables": 1, "rows": 1, "bytes": 1 }, "steps": {},
            "finished_at": "2026-11-23T03:30:00Z",
        });
        let done = json!({ "event": "done", "manifest": manifest }).to_string();
        let running = |id: &str| {
            json!({ "phase": "Running", "containerStatuses": [{
                "name": CONTAINER, "image": "", "imageID": id, "ready": true, "restartCount": 0,
                "state": { "running": {} },
            }]})
        };
        let Outcome::Done { manifest, .. } = of(running("postgres@sha256:0a"), &[&done]) else {
            panic!("it is done")
        };
        assert_eq!(manifest.engine.image_digest.as_deref(), Some("sha256:0a"));
        for other in [r#"{"event":"step","step":"stop"}"#, "done", "{\"event\":\"done\"}"] {
            assert_eq!(of(running(""), &[other]), Outcome::Running(Some("1".into())), "{other}");
        }
        // What it did is of no use where it was killed on the way out for want of memory.
        assert!(matches!(of(exit(137, "OOMKilled"), &[&done]), Outcome::MayPass(_)));
    }

    #[test]
    fn a_job_without_its_pod_may_pass_if_it_failed_and_runs_if_not() {
        let job = |status| serde_json::from_value(json!({ "status": status })).unwrap();
        assert_eq!(outcome(&job(json!({})), &[], |_| None), Outcome::Running(None));
        let late =
            json!({ "conditions": [{ "type": "Failed", "status": "True", "reason": "DeadlineExceeded" }] });
        assert!(
            matches!(outcome(&job(late), &[], |_| None), Outcome::MayPass(why) if why.contains("took longer"))
        );
    }

    #[test]
    fn the_image_that_ran_is_known_by_its_digest_however_the_node_writes_it() {
        let of = |id: &str| {
            let mut status = exit(0, "Completed");
            status["containerStatuses"][0]["imageID"] = json!(id);
            digest(&serde_json::from_value(json!({ "status": status })).unwrap())
        };
        let digest = format!("sha256:{}", "0a".repeat(32));
        let written = ["", "docker.io/library/postgres@", "docker-pullable://postgres@", "docker://"];
        for before in written {
            assert_eq!(of(&format!("{before}{digest}")), Some(digest.clone()), "{before}");
        }
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_pod_that_can_not_start_says_why() {
        let waiting = json!({ "reason": "ImagePullBackOff", "message": "no such image" });
        let pod = json!({ "status": { "phase": "Pending", "containerStatuses": [
            { "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": waiting } }
        ]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(super::waiting(&pod).unwrap(), "its pod waits: ImagePullBackOff: no such image");
    }
}
