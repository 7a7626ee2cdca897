//! `aldaas-csi explain`: why a clone is kept or goes, as the running plugin sees it, asked over its own socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aldaas_api::VolumeId;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::decision::{Decision, Reason, Subject};
use super::{Progress, Reaper};
use crate::idle::{Idle, boottime};
use crate::proto::explain::explain_server::Explain;
use crate::proto::explain::{ExplainRequest, ExplainResponse, Explanation};

/// The service.
pub struct ExplainService(pub Arc<Reaper>);

#[tonic::async_trait]
impl Explain for ExplainService {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Ok(Response::new(self.0.explain(&request.into_inner().what)))
    }
}

impl Reaper {
    /// What the last pass decided about `what`: a volume id, a clone's name, a pod's UID or `namespace/pod`; nothing:
    /// everything that this node answers for.
    pub fn explain(&self, what: &str) -> ExplainResponse {
        let progress = self.progress();
        let now = boottime();
        let is_meant = |decision: &&Decision| match what {
            "" => decision.state.is_ours(),
            what => is_about(decision, what),
        };
        let begun = self.work.begun();
        // What does not end is told also when the last pass saw no more of it.
        let unseen = begun.values().map(|begun| &begun.decision);
        let unseen = unseen.filter(|decision| !progress.last.contains_key(&decision.subject));
        let found = progress.last.values().chain(unseen).filter(is_meant);
        let working = |decision: &Decision| Some(now.saturating_sub(begun.get(&decision.subject)?.at));
        ExplainResponse {
            explanations: found
                .map(|decision| Explanation {
                    working_seconds: working(decision).map(|since| since.as_secs()),
                    ..explanation(decision, &progress, &self.idle(decision), now)
                })
                .collect(),
            looked_seconds_ago: progress.at.map(|at| now.saturating_sub(at).as_secs()),
            away: progress.failed.clone().unwrap_or_default(),
        }
    }

    fn idle(&self, decision: &Decision) -> Option<Idle> {
        match &decision.subject {
            Subject::Clone(name) => self.observer.last_idle(name),
            _ => None,
        }
    }
}

fn is_about(decision: &Decision, what: &str) -> bool {
    let handle = what.parse::<VolumeId>().map(|id| id.handle().to_string());
    let by_subject = match &decision.subject {
        Subject::Clone(name) => name.as_str() == what || handle.is_ok_and(|handle| handle == name.as_str()),
        Subject::Volume(spec) => spec.image == what || handle.is_ok_and(|handle| handle == spec.image),
        Subject::Target(path) => path == Path::new(what),
        Subject::Trash => what == "trash",
    };
    let by_pod = |uid: &str, namespace: &str, name: &str| {
        uid == what || what.split_once('/') == Some((namespace, name))
    };
    by_subject
        || decision
            .user
            .as_ref()
            .is_some_and(|user| user.volume == what || by_pod(&user.pod_uid, &user.namespace, &user.pod))
        || matches!(&decision.reason, Reason::UsedBy(pod) | Reason::Idle(pod, _) if by_pod(&pod.uid, &pod.namespace, &pod.name))
}

fn explanation(decision: &Decision, progress: &Progress, idle: &Option<Idle>, now: Duration) -> Explanation {
    let user = decision.user.clone().unwrap_or_default();
    let since = progress.memory.since.get(&decision.subject);
    Explanation {
        subject: decision.subject.to_string(),
        state: decision.state.as_str().to_owned(),
        verdict: decision.verdict().to_owned(),
        reason: decision.reason.to_string(),
        volume_id: user.volume,
        node: user.node,
        namespace: user.namespace,
        pod: user.pod,
        pod_uid: user.pod_uid,
        clone_name: user.clone_name.unwrap_or_default(),
        ttl_seconds: user.ttl.map(|ttl| ttl.as_secs()),
        r#use: idle.as_ref().map(ToString::to_string).unwrap_or_default(),
        idle_seconds: idle.as_ref().map(|idle| idle.elapsed.as_secs()),
        unused_seconds: since.map(|since| now.saturating_sub(*since).as_secs()),
        working_seconds: None,
    }
}

/// Asks the plugin that serves `endpoint`, and prints what it says: for people, or as JSON.
///
/// # Errors
/// When it does not run, or knows nothing of the volume.
pub async fn ask(endpoint: &Path, what: &str, as_json: bool) -> Result<String> {
    let request = ExplainRequest { what: what.to_owned() };
    let answer = crate::client::explain(endpoint).explain(request).await.with_context(|| {
        format!("ask the plugin at {}: is it running, and is this its --endpoint?", endpoint.display())
    })?;
    let answer = answer.into_inner();
    if as_json {
        return Ok(format!("{:#}\n", to_json(&answer)));
    }
    if answer.explanations.is_empty() && !what.is_empty() {
        let away = if answer.away.is_empty() { String::new() } else { format!(" ({})", answer.away) };
        bail!(
            "the reaper of this node knows nothing of {what:?}{away}: give a volume id, a clone's name, a pod's UID or NAMESPACE/POD. What is gone is not remembered: see the log"
        );
    }
    Ok(to_text(&answer))
}

fn to_json(answer: &ExplainResponse) -> Value {
    let one = |e: &Explanation| {
        json!({
            "subject": e.subject, "state": e.state, "verdict": e.verdict, "reason": e.reason,
            "volumeId": e.volume_id, "node": e.node, "namespace": e.namespace, "pod": e.pod, "podUid": e.pod_uid,
            "cloneName": e.clone_name, "ttlSeconds": e.ttl_seconds, "use": e.r#use,
            "idleSeconds": e.idle_seconds, "unusedSeconds": e.unused_seconds, "workingSeconds": e.working_seconds,
        })
    };
    json!({
        "explanations": answer.explanations.iter().map(one).collect::<Vec<_>>(),
        "lookedSecondsAgo": answer.looked_seconds_ago,
        "away": answer.away,
    })
}

fn to_text(answer: &ExplainResponse) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text += &format!("{name:<9}{value}\n");
        }
    };
    for (n, e) in answer.explanations.iter().enumerate() {
        let ago = |seconds: Option<u64>| seconds.map(|s| format!("{s} s")).unwrap_or_default();
        if n > 0 {
            line(" ", " ");
        }
        line("WHAT", &e.subject);
        line("VERDICT", &format!("{} ({})", e.verdict, e.state));
        line("WHY", &e.reason);
        let pod = if e.pod.is_empty() {
            String::new()
        } else {
            format!("{}/{} ({})", e.namespace, e.pod, e.pod_uid)
        };
        line("POD", &pod);
        line("NODE", &e.node);
        line("VOLUME", &e.volume_id);
        line("NAME", &e.clone_name);
        line("TTL", &e.ttl_seconds.map(|s| format!("{s} s")).unwrap_or_default());
        line("USE", &e.r#use);
        line("UNUSED", &ago(e.unused_seconds));
        line("WORKING", &ago(e.working_seconds));
    }
    match answer.looked_seconds_ago {
        Some(seconds) => line("LOOKED", &format!("{seconds} s ago")),
        None => line("LOOKED", "never yet"),
    }
    line("AWAY", &answer.away);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_names_verdict_reason_and_pod() {
        let one = Explanation {
            subject: "clone/csi-1".into(),
            state: "orphaned".into(),
            verdict: "remove".into(),
            reason: "its pod shop/web is gone".into(),
            namespace: "shop".into(),
            pod: "web".into(),
            pod_uid: "u".into(),
            ttl_seconds: Some(90),
            ..Default::default()
        };
        let answer =
            ExplainResponse { explanations: vec![one], looked_seconds_ago: Some(3), away: String::new() };
        let text = to_text(&answer);
        assert_eq!(
            text,
            "WHAT     clone/csi-1\nVERDICT  remove (orphaned)\nWHY      its pod shop/web is gone\nPOD      shop/web (u)\nTTL      90 s\nLOOKED   3 s ago\n"
        );
        assert_eq!(to_json(&answer)["explanations"][0]["verdict"], "remove");
    }
}
