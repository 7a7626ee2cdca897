//! The match conditions, evaluated as API servers from 1.28 on evaluate them.

use aldaas_webhook::registration::{Endpoint, Registration};
use serde_json::{Value, json};

use crate::common::asking;

fn condition(at: usize) -> cel::Program {
    let registration = Registration {
        name: "aldaas".into(),
        own_namespace: "aldaas".into(),
        endpoint: Endpoint::Service("aldaas-webhook".into()),
        match_conditions: true,
        authorities: None,
    };
    let webhooks = registration.object().webhooks.unwrap();
    cel::Program::compile(&webhooks[at].match_conditions.as_ref().unwrap()[0].expression).unwrap()
}

fn holds(program: &cel::Program, object: &Value) -> bool {
    let mut context = cel::Context::default();
    context.add_variable("object", object.clone()).unwrap();
    match program.execute(&context).unwrap() {
        cel::Value::Bool(holds) => holds,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_has_the_key_is_asked_about() {
    let pods = condition(0);
    assert!(holds(&pods, &asking("orders:latest")));
    assert!(holds(&pods, &json!({ "metadata": { "labels": { "aldaas/db": "latest" } } })));
    for other in [
        json!({ "metadata": {} }),
        json!({ "metadata": { "annotations": { "aldaas/ttl": "1h" }, "labels": { "app": "aldaas/db" } } }),
    ] {
        assert!(!holds(&pods, &other), "{other}");
    }
    let workloads = condition(1);
    let with = |own: Value, template: Value| json!({ "metadata": own, "spec": { "template": template } });
    let annotated = |key: &str| json!({ "annotations": { key: "x" } });
    for asked in [
        with(annotated("aldaas/db"), json!({ "spec": {} })),
        with(json!({ "labels": { "aldaas/db": "latest" } }), json!({})),
        with(json!({}), json!({ "metadata": annotated("aldaas/db") })),
        with(json!({}), json!({ "metadata": annotated("aldaas/carried") })),
    ] {
        assert!(holds(&workloads, &asked), "{asked}");
    }
    for other in [
        with(json!({}), json!({})),
        with(json!({ "annotations": { "x": "y" } }), json!({ "metadata": { "labels": { "app": "web" } } })),
    ] {
        assert!(!holds(&workloads, &other), "{other}");
    }
}
