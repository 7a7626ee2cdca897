//! What the webhook answers to whatever comes in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aldaas_webhook::catalogue::{Catalogue, Namespace};
use aldaas_webhook::index::Index;
use aldaas_webhook::metrics::Metrics;
use aldaas_webhook::review::Reviewer;
use aldaas_webhook::server::{BODY_MAX, router};
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::common::{OWN, asking, catalogue, image, merged};

fn served(index: Index) -> (Router, Arc<Index>, Arc<Metrics>) {
    let (index, metrics) = (Arc::new(index), Arc::new(Metrics::default()));
    let reviewer = Reviewer::new(index.clone(), metrics.clone(), OWN.to_owned());
    (router(Arc::new(reviewer)), index, metrics)
}

async fn post(router: &Router, kind: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
    let request = Request::post("/mutate").header("content-type", kind).body(body.into()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    (status, axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec())
}

async fn ask(router: &Router, review: &Value) -> Value {
    let (status, body) = post(router, "application/json; charset=utf-8", review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].clone()
}

pub fn review(object: &Value, namespace: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": { "username": "dev" },
            "object": object,
            "oldObject": null,
            "dryRun": false,
        },
    })
}

fn patch_of(response: &Value) -> Value {
    let text = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test]
async fn a_review_is_answered_with_a_patch_or_a_denial_and_counted() {
    let (router, index, metrics) = served(Index::known(catalogue()));
    let allowed = ask(&router, &review(&asking("orders:latest"), "shop")).await;
    assert_eq!((&allowed["allowed"], &allowed["patchType"]), (&json!(true), &json!("JSONPatch")));
    assert_eq!(patch_of(&allowed)[0]["path"], "/spec/volumes");
    assert_eq!(allowed["auditAnnotations"]["golden-images"], "orders-20261122t033000z");
    let denied = ask(&router, &review(&asking("secret:latest"), "shop")).await;
    assert_eq!((&denied["allowed"], &denied["status"]["code"]), (&json!(false), &json!(403)));
    assert!(
        denied["status"]["message"].as_str().unwrap().contains("#pay-team") && denied.get("patch").is_none()
    );
    let warned = merged(
        asking("orders:latest"),
        json!({ "metadata": { "annotations": { "aldaas/tll": "x".repeat(400) } } }),
    );
    let warned = ask(&router, &review(&warned, "shop")).await;
    assert!(warned["warnings"][0].as_str().unwrap().len() <= 256);
    let text = metrics.encode(&index);
    for line in [
        r#"aldaas_webhook_reviews_total{kind="Pod",outcome="mutated"} 2"#,
        r#"aldaas_webhook_reviews_total{kind="Pod",outcome="denied"} 1"#,
        r#"aldaas_webhook_denials_total{reason="no-access"} 1"#,
        r#"aldaas_webhook_cache_objects{kind="goldenimages"} 6"#,
        "aldaas_webhook_cache_age_seconds",
        "aldaas_webhook_review_duration_seconds_count 3",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn what_is_not_its_business_is_let_through_untouched() {
    let (router, _, _) = served(Index::known(catalogue()));
    let pod = review(&asking("nothing:latest"), "shop");
    let request = |with: Value| merged(pod.clone(), json!({ "request": with }));
    for other in [
        request(json!({ "namespace": "kube-system" })),
        request(json!({ "namespace": OWN })),
        request(json!({ "namespace": null })),
        request(json!({ "operation": "DELETE", "object": null })),
        request(json!({ "operation": "CONNECT" })),
        request(json!({ "subResource": "ephemeralcontainers", "operation": "UPDATE" })),
        request(json!({ "kind": { "kind": "ReplicaSet", "group": "apps" } })),
        request(json!({ "kind": { "version": "v2" } })),
        request(
            json!({ "kind": { "kind": "Thing", "group": "x.io" }, "object": { "metadata": 5, "spec": [] } }),
        ),
        request(json!({ "object": { "metadata": { "deletionTimestamp": "2026-11-23T03:30:00Z" } } })),
    ] {
        let response = ask(&router, &other).await;
        assert!(response["allowed"] == true && response.get("patch").is_none(), "{response}\n{other:#}");
    }
    let late = request(json!({ "operation": "UPDATE", "oldObject": { "metadata": {} } }));
    assert!(ask(&router, &late).await.get("patch").is_none(), "a pod that exists gets no volumes");
    let job = json!({ "kind": { "group": "batch", "kind": "Job" }, "operation": "UPDATE",
        "object": { "spec": { "template": { "spec": {} } } } });
    assert!(
        ask(&router, &request(job.clone())).await.get("patch").is_none(),
        "a Job's template never changes"
    );
    let created = merged(job, json!({ "operation": "CREATE" }));
    assert!(ask(&router, &request(created)).await.get("patch").is_some());
}

#[tokio::test]
async fn what_is_no_review_is_refused_and_what_has_a_uid_is_answered() {
    let (router, _, _) = served(Index::known(catalogue()));
    let good = review(&asking("orders:latest"), "shop").to_string();
    assert_eq!(post(&router, "text/plain", good.clone()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(post(&router, "application/json+x", good.clone()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for bad in ["", "{", "[]", "null", "{}", r#"{"request":{"uid":7}}"#, &good[..good.len() - 2], "\u{0}"] {
        assert_eq!(
            post(&router, "application/json", bad.to_owned()).await.0,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    assert_eq!(post(&router, "application/json", "[".repeat(100_000)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        post(&router, "application/json", " ".repeat(BODY_MAX + 1)).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    for strange in [
        json!({ "apiVersion": "admission.k8s.io/v1beta1" }),
        json!({ "apiVersion": "admission.k8s.io/v2" }),
        json!({ "kind": "Pod" }),
        json!({ "request": { "object": { "spec": { "containers": "none" } } } }),
        json!({ "request": { "object": { "metadata": { "annotations": { "aldaas/db": 5 } } } } }),
        json!({ "request": { "operation": 5 } }),
        json!({ "request": { "kind": null } }),
    ] {
        let response = ask(&router, &merged(review(&asking("orders:latest"), "shop"), strange.clone())).await;
        assert_eq!(
            (&response["allowed"], &response["status"]["code"]),
            (&json!(false), &json!(400)),
            "{strange}"
        );
    }
}

#[tokio::test]
async fn reviews_of_three_mebibytes_are_answered() {
    let (router, _, _) = served(Index::known(catalogue()));
    let padding = json!({ "metadata": { "annotations": { "notes": "ö".repeat(3 << 19) } } });
    let response = ask(&router, &review(&merged(asking("orders:latest"), padding), "shop")).await;
    assert!(response["allowed"] == true && response.get("patch").is_some());
}

#[tokio::test]
async fn with_nothing_known_it_refuses_rather_than_guesses() {
    let (router, index, _) = served(Index::default());
    assert_eq!(index.missing().len(), 3);
    let response = ask(&router, &review(&asking("orders:latest"), "shop")).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    let nothing = review(&json!({ "metadata": {}, "spec": {} }), "shop");
    assert_eq!(ask(&router, &nothing).await["allowed"], true);
}

#[tokio::test]
async fn a_namespace_that_stays_unknown_is_waited_for_and_then_refused() {
    let (router, _, _) = served(Index::known(catalogue()));
    let started = Instant::now();
    let response = ask(&router, &review(&asking("orders:latest"), "new")).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    assert!(started.elapsed() >= Duration::from_secs(1), "it may come yet");
}

#[tokio::test]
async fn thousands_of_databases_images_and_namespaces_are_no_burden() {
    let mut all = Catalogue::default();
    for n in 0..1000 {
        let name = format!("db{n}");
        let database = crate::common::database(&name, json!({}));
        all.set_database(name.parse().unwrap(), Some(Ok(Arc::new(database))));
        all.set_namespace(format!("ns{n}"), Some(Namespace::default()));
        for day in 10..20 {
            let name = format!("{name}-202611{day}t033000z");
            all.set_image(name.parse().unwrap(), Some(image(&name, "True", "Verified", "")));
        }
    }
    assert_eq!(all.sizes(), [1000, 10_000, 1000]);
    let (router, _, _) = served(Index::known(all));
    let started = Instant::now();
    for n in 0..1000 {
        let response = ask(&router, &review(&asking(&format!("db{n}:latest")), &format!("ns{n}"))).await;
        assert_eq!(response["auditAnnotations"]["golden-images"], format!("db{n}-20261119t033000z"));
    }
    let misspelt = ask(&router, &review(&asking("db1000:latest"), "ns1")).await;
    assert!(misspelt["status"]["message"].as_str().unwrap().contains("did you mean one of db100"));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

fn json_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["CREATE", "UPDATE", "Pod", "v1", "orders:latest", "latest"])
            .prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "metadata",
        "annotations",
        "labels",
        "aldaas/db",
        "aldaas/ttl",
        "spec",
        "template",
        "containers",
        "initContainers",
        "volumes",
        "volumeMounts",
        "env",
        "name",
        "image",
        "mountPath",
        "csi",
        "volumeAttributes",
        "driver",
        "x",
    ]);
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..5)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_comes_with_a_uid_is_answered_with_it(
        what in json_like(), field in prop::sample::select(vec!["object", "oldObject", "kind", "operation", "namespace"]),
        workload: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (router, _, _) = served(Index::known(catalogue()));
        let mut asked = review(&asking("orders:latest"), "shop");
        if workload {
            asked["request"]["kind"] = json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
        }
        asked["request"][field] = what;
        // Not the name of a namespace that is waited for.
        if field == "namespace" && asked["request"]["namespace"].is_string() {
            asked["request"]["namespace"] = json!("ci");
        }
        let response = runtime.block_on(ask(&router, &asked));
        prop_assert!(response["allowed"].is_boolean());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (router, _, _) = served(Index::known(catalogue()));
        runtime.block_on(post(&router, "application/json", bytes));
    }
}
