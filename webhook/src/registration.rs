//! How the API server is told of the webhook: for what it is asked, and what happens when it does not answer.
//!
//! It fails closed and matches narrowly: an outage stops only what asks for a database.

use aldaas_api::keys::{CARRIED, DB, WEBHOOK, WEBHOOK_ENABLED};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};

use crate::server::PATH;

/// The label with a namespace's own name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// The API server's patience in seconds: a developer waits meanwhile.
const TIMEOUT: i32 = 3;

/// Where the API server finds the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Service in aldaas' own namespace.
    Service(String),
    /// `https://host:port`, for an API server outside.
    Url(String),
}

/// What is registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The object's name.
    pub name: String,
    /// The namespace that aldaas runs in, where nothing is touched.
    pub own_namespace: String,
    /// Where the webhook is.
    pub endpoint: Endpoint,
    /// The API server knows `matchConditions` (1.28 and later). Without them only namespaces with the label
    /// `aldaas/webhook: enabled` are served.
    pub match_conditions: bool,
    /// Whom it is to trust, as PEM, where that is known already.
    pub authorities: Option<Vec<u8>>,
}

impl Registration {
    /// The object.
    pub fn object(&self) -> MutatingWebhookConfiguration {
        let pods = [rule("", "pods", &["CREATE"])];
        // A Job's template never changes, so that nothing can be done about one that exists.
        let workloads = [
            rule("apps", "deployments", &["CREATE", "UPDATE"]),
            rule("apps", "statefulsets", &["CREATE", "UPDATE"]),
            rule("batch", "jobs", &["CREATE"]),
        ];
        let labels = [
            ("app.kubernetes.io/name".to_owned(), "aldaas".to_owned()),
            ("app.kubernetes.io/component".to_owned(), "webhook".to_owned()),
        ];
        MutatingWebhookConfiguration {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            webhooks: Some(vec![
                self.webhook("pods.aldaas.dev", &pods, has("object.metadata", &[DB])),
                self.webhook(
                    "workloads.aldaas.dev",
                    &workloads,
                    format!(
                        "{} || (has(object.spec.template.metadata) && ({}))",
                        has("object.metadata", &[DB]),
                        has("object.spec.template.metadata", &[DB, CARRIED])
                    ),
                ),
            ]),
        }
    }

    fn webhook(&self, name: &str, rules: &[RuleWithOperations], expression: String) -> MutatingWebhook {
        let condition = |name: &str, expression: &str| MatchCondition {
            name: name.to_owned(),
            expression: expression.to_owned(),
        };
        // What is being deleted loses its finalizers by an update, which an outage must not hold up.
        let conditions = vec![
            condition("asks-for-a-database", &expression),
            condition("is-to-stay", "!has(object.metadata.deletionTimestamp)"),
        ];
        MutatingWebhook {
            name: name.to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: self.client_config(),
            failure_policy: Some("Fail".to_owned()),
            match_conditions: self.match_conditions.then_some(conditions),
            match_policy: Some("Equivalent".to_owned()),
            namespace_selector: Some(self.namespaces()),
            object_selector: None,
            reinvocation_policy: Some("IfNeeded".to_owned()),
            rules: Some(rules.to_vec()),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(TIMEOUT),
        }
    }

    fn client_config(&self) -> WebhookClientConfig {
        let ca_bundle = self.authorities.clone().map(ByteString);
        match &self.endpoint {
            Endpoint::Service(name) => WebhookClientConfig {
                ca_bundle,
                service: Some(ServiceReference {
                    name: name.clone(),
                    namespace: self.own_namespace.clone(),
                    path: Some(PATH.to_owned()),
                    port: Some(443),
                }),
                url: None,
            },
            Endpoint::Url(url) => {
                let url = Some(format!("{}{PATH}", url.trim_end_matches('/')));
                WebhookClientConfig { ca_bundle, service: None, url }
            }
        }
    }

    fn namespaces(&self) -> LabelSelector {
        let out = LabelSelectorRequirement {
            key: NAMESPACE_NAME.to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(vec!["kube-system".to_owned(), self.own_namespace.clone()]),
        };
        let label = [(WEBHOOK.to_owned(), WEBHOOK_ENABLED.to_owned())];
        LabelSelector {
            match_expressions: Some(vec![out]),
            match_labels: (!self.match_conditions).then(|| label.into()),
        }
    }
}

/// CEL: whether one of these keys stands on something, as an annotation or a label.
fn has(metadata: &str, keys: &[&str]) -> String {
    let in_map = |map: &str| {
        let any =
            keys.iter().map(|key| format!("'{key}' in {metadata}.{map}")).collect::<Vec<_>>().join(" || ");
        format!("(has({metadata}.{map}) && ({any}))")
    };
    format!("{} || {}", in_map("annotations"), in_map("labels"))
}

fn rule(group: &str, resource: &str, operations: &[&str]) -> RuleWithOperations {
    let owned = |values: &[&str]| Some(values.iter().map(|&value| value.to_owned()).collect());
    RuleWithOperations {
        api_groups: owned(&[group]),
        api_versions: owned(&["v1"]),
        operations: owned(operations),
        resources: owned(&[resource]),
        scope: Some("Namespaced".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(match_conditions: bool) -> MutatingWebhookConfiguration {
        Registration {
            name: "aldaas".into(),
            own_namespace: "aldaas-system".into(),
            endpoint: Endpoint::Service("aldaas-webhook".into()),
            match_conditions,
            authorities: None,
        }
        .object()
    }

    #[test]
    fn it_fails_closed_matches_narrowly_and_leaves_kubernetes_and_itself_alone() {
        for (new, webhook) in [true, false]
            .into_iter()
            .flat_map(|new| registration(new).webhooks.unwrap().into_iter().map(move |w| (new, w)))
        {
            assert_eq!(webhook.failure_policy.as_deref(), Some("Fail"));
            assert_eq!(webhook.timeout_seconds, Some(3));
            assert_eq!(webhook.reinvocation_policy.as_deref(), Some("IfNeeded"));
            assert_eq!(webhook.side_effects, "None");
            assert_eq!(webhook.match_conditions.is_some(), new);
            let selector = webhook.namespace_selector.unwrap();
            assert_eq!(selector.match_labels.is_some(), !new);
            let out = &selector.match_expressions.unwrap()[0];
            assert_eq!(out.values.as_ref().unwrap()[..], ["kube-system", "aldaas-system"]);
            let text = webhook.match_conditions.map(|all| all[0].expression.clone()).unwrap_or_default();
            assert_eq!(text.contains("'aldaas/db' in object.metadata.annotations"), new);
            assert_eq!(text.matches('(').count(), text.matches(')').count());
        }
    }
}
