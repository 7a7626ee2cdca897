//! The adapter against a real API server.

mod kube_support;

use aldaas_api::context::{PodRef, VolumeContext, Wanted, WantedClone};
use aldaas_api::{DatabaseName, Version, VolumeId, kinds};
use aldaas_csi::access::{self, Denied, Own};
use aldaas_csi::ports::{Cluster as _, Directory as _};
use aldaas_testbed::{Testbed, unique};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::DeleteParams;
use kube::{Api, Client, ResourceExt as _};
use kube_support as on;
use serde_json::json;

fn own() -> Own {
    Own { namespace: "aldaas".into(), ingest_account: "aldaas-ingest".into() }
}

fn clone_of(database: &DatabaseName, namespace: &str) -> VolumeContext {
    let database = database.clone();
    let wanted = WantedClone { database, version: Version::Latest, pinned: None, name: None, ttl: None };
    let pod = PodRef {
        namespace: namespace.into(),
        name: "web".into(),
        uid: "1".into(),
        service_account: "default".into(),
    };
    VolumeContext { wanted: Wanted::Clone(wanted), pod }
}

#[tokio::test]
async fn who_may_clone_follows_the_objects_as_they_change() {
    let config = Testbed::kube().kubeconfig();
    let client = on::admin(&config).await;
    let (kubernetes, _guard) = on::plugin(&config, &unique("node-"), "default").await;
    let (shop, web) = (unique("shop-"), unique("web-"));
    let orders: DatabaseName = unique("orders-").parse().unwrap();
    on::namespace(&client, &shop, "shop").await;
    on::namespace(&client, &web, "web").await;
    on::database(&client, &orders, &json!({ "contact": "#shop" })).await;
    let answer = |namespace: &str| access::decide(&clone_of(&orders, namespace), &*kubernetes, &own());

    let denied = |namespace: &str| matches!(answer(namespace), Err(Denied::NoAccess { .. }));
    on::until("the database is known, and closed", || denied(&shop).then_some(())).await;
    assert!(kubernetes.is_ready());
    assert!(answer(&shop).unwrap_err().to_string().ends_with(": ask #shop"));

    let selector = json!({ "matchExpressions": [{ "key": "team", "operator": "In", "values": ["shop"] }] });
    on::change(&client, &orders, &json!({ "access": { "namespaceSelector": selector } })).await;
    let known = on::until("the shop may clone", || answer(&shop).ok()).await;
    assert_eq!((known.port, known.storage.size.bytes), (5432, 10 << 30));
    assert!(denied(&web));

    // The schema lets it pass, and yet it means nothing: it is closed, and the others are not harmed.
    let other: DatabaseName = unique("other-").parse().unwrap();
    on::database(&client, &other, &json!({ "namespaceSelector": {} })).await;
    on::change(&client, &orders, &json!({ "clone": { "ttl": "999d" } })).await;
    let unknown = || matches!(answer(&shop), Err(Denied::NoDatabase { .. }));
    on::until("what can't be understood is left out", || unknown().then_some(())).await;
    access::decide(&clone_of(&other, &web), &*kubernetes, &own()).unwrap();
    on::change(&client, &orders, &json!({ "clone": { "ttl": "30m" } })).await;
    on::until("it is mended", || answer(&shop).ok()).await;

    let api: Api<kinds::Database> = Api::all(client);
    for name in [&orders, &other] {
        api.delete(name.as_str(), &DeleteParams::default()).await.unwrap();
    }
    on::until("it is gone", || unknown().then_some(())).await;
    let left = || kubernetes.databases().unwrap().contains(&other);
    on::until("so is the other", || (!left()).then_some(())).await;
}

/// The API server drops what the schema does not know, without a word.
#[tokio::test]
async fn every_field_of_a_database_is_kept_by_the_api_server() {
    let client = on::admin(&Testbed::kube().kubeconfig()).await;
    let secret = json!({ "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } });
    let env = json!([{ "name": "A", "value": "b" }, secret]);
    let spec = json!({
        "engine": {
            "kind": "postgres", "image": "postgres:15.8", "imagePullPolicy": "IfNotPresent", "imagePullSecrets": ["pull"],
            "port": 5433, "mount": "/data", "database": "shop", "locale": "de_DE.UTF-8", "runAsUser": 70, "runAsGroup": 71,
            "env": env, "args": ["-c", "shared_buffers=1GB"], "resources": { "limits": { "memory": "2Gi" } },
        },
        "source": {
            "s3": {
                "endpoint": "https://minio.storage:9000", "bucket": "backup", "prefix": "orders/", "suffix": ".sql.gz",
                "region": "eu-west-1", "insecure": true,
                "credentials": { "secret": "s3", "accessKeyId": "id", "secretAccessKey": "key" },
            },
            "interval": "5m",
        },
        "storage": { "size": "100Gi", "filesystem": "xfs", "objectSize": "4Mi" },
        "restore": { "jobs": 4, "allowEmpty": true, "command": ["sh", "-c", "psql"], "env": env, "timeout": "6h" },
        "mask": { "sql": ["UPDATE users SET email = id"], "command": ["mask"], "env": env },
        "check": { "sql": ["SELECT count(*) > 0 FROM orders"], "command": ["check"], "env": env, "timeout": "30m" },
        "retention": { "keep": 2, "keepDaily": 7, "keepWeekly": 4, "failedTTL": "1d" },
        "clone": { "ttl": "30m", "namedTTL": "2d", "mountOptions": ["noatime"], "objectSize": "64Ki", "readOnly": true },
        "access": {
            "namespaceSelector": {
                "matchLabels": { "team": "shop" },
                "matchExpressions": [{ "key": "stage", "operator": "NotIn", "values": ["prod"] }],
            },
            "contact": "#shop",
        },
        "versionMismatch": "warn",
        "suspend": true,
    });
    let name = unique("all-");
    let mut object = on::database_object(&name, &json!({}));
    object["spec"] = spec.clone();
    let api: Api<kinds::Database> = Api::all(client);
    let kept = on::create(api.clone(), object).await;
    assert_eq!(serde_json::to_value(&kept.spec).unwrap(), spec);
    api.delete(&name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn names_that_are_none_are_refused_by_the_api_server_itself() {
    let client = on::admin(&Testbed::kube().kubeconfig()).await;
    let api: Api<kinds::Database> = Api::all(client.clone());
    let mut refused = Vec::new();
    for name in ["latest", "1a", "a.b", &"a".repeat(41)] {
        let object = serde_json::from_value(on::database_object(name, &json!({}))).unwrap();
        refused.push(api.create(&Default::default(), &object).await.unwrap_err().to_string());
    }
    assert!(refused.iter().all(|error| error.contains("metadata.name")), "{refused:#?}");
}

#[tokio::test]
async fn a_node_sees_its_own_pods_and_deletes_only_the_very_pod_that_it_means() {
    let config = Testbed::kube().kubeconfig();
    let client = on::admin(&config).await;
    let (here, there, namespace) = (unique("node-"), unique("node-"), unique("pods-"));
    let (kubernetes, _guard) = on::plugin(&config, &here, "default").await;
    on::node(&client, &here).await;
    on::namespace(&client, &namespace, "shop").await;
    let ours = on::pod(&client, &namespace, "ours", &here).await;
    on::pod(&client, &namespace, "theirs", &there).await;

    let seen = on::until("the pod is seen", || kubernetes.pods().ok()?.pop()).await;
    let uid = ours.uid().unwrap();
    assert_eq!((seen.name.as_str(), seen.uid.as_str()), ("ours", uid.as_str()));
    assert_eq!((seen.finished, seen.deleting, seen.volumes.len()), (false, false, 1));
    assert_eq!(seen.volumes[0].id, VolumeId::of_pod(&uid, "data"));
    assert_eq!(seen.volumes[0].attributes["db"], "orders:latest");
    assert_eq!(kubernetes.pods().unwrap().len(), 1, "the other is another node's");
    on::until("the node is seen", || kubernetes.nodes().ok()?.contains(&here).then_some(())).await;
    assert!(kubernetes.node_exists(&here).await.unwrap());
    assert!(!kubernetes.node_exists(&there).await.unwrap());
    assert!(kubernetes.pod_exists(&namespace, "ours", &uid).await.unwrap());
    assert!(!kubernetes.pod_exists(&namespace, "ours", "another").await.unwrap());
    assert!(!kubernetes.pod_exists(&namespace, "nobody", &uid).await.unwrap());

    // One of the same name that was there before, and is no more.
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let before = aldaas_csi::ports::Pod { uid: "another".into(), ..seen.clone() };
    kubernetes.delete_pod(&before, "Idle", "nobody used it").await.unwrap();
    assert_eq!(api.get("ours").await.unwrap().metadata.deletion_timestamp, None);
    assert_eq!(events(&client, &namespace).await.len(), 0, "nothing was done, so nothing is told");

    kubernetes.delete_pod(&seen, "Idle", "no connection and no I/O for 30m").await.unwrap();
    assert!(api.get("ours").await.unwrap().metadata.deletion_timestamp.is_some());
    let told = events(&client, &namespace).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].reason.as_deref(), Some("Idle"));
    assert_eq!(told[0].message.as_deref(), Some("no connection and no I/O for 30m"));
    assert_eq!(told[0].involved_object.uid.as_deref(), Some(uid.as_str()));
    on::until("it is seen to go", || kubernetes.pods().ok()?.pop()?.deleting.then_some(())).await;

    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    api.delete("ours", &now).await.unwrap();
    on::until("it is gone", || kubernetes.pods().ok()?.is_empty().then_some(())).await;
    kubernetes.delete_pod(&seen, "Idle", "again").await.unwrap();
    assert_eq!(events(&client, &namespace).await.len(), 1);
    api.delete("theirs", &now).await.unwrap();
}

async fn events(client: &Client, namespace: &str) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    api.list(&Default::default()).await.expect("Events can be listed").items
}

#[tokio::test]
async fn one_node_is_elected_and_another_when_it_stops() {
    let config = Testbed::kube().kubeconfig();
    let client = on::admin(&config).await;
    let namespace = unique("election-");
    on::namespace(&client, &namespace, "platform").await;
    let (first, first_runs) = on::plugin(&config, "first", &namespace).await;
    on::until("the first is elected", || first.is_elected().then_some(())).await;
    let (second, _second_runs) = on::plugin(&config, "second", &namespace).await;
    on::until("the second has looked", || second.nodes().ok()).await;
    assert!(!second.is_elected());
    drop(first_runs);
    on::until("the second is elected", || {
        assert!(!(first.is_elected() && second.is_elected()), "two at once");
        second.is_elected().then_some(())
    })
    .await;
    let lease: Lease = Api::namespaced(client, &namespace).get("aldaas-reaper").await.unwrap();
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("second"), Some(1)));
}

#[tokio::test]
async fn a_kubeconfig_that_is_missing_is_told_by_its_name() {
    let missing = std::path::Path::new("/nowhere/kubeconfig");
    let error =
        aldaas_csi::kubernetes::Kubernetes::new(Some(missing), "node", "default").await.err().unwrap();
    assert!(format!("{error:#}").starts_with("read /nowhere/kubeconfig: "), "{error:#}");
}
