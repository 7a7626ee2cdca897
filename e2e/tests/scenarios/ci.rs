//! Pods of a CI system: labels, and a namespace that says which database is meant.

use aldaas_e2e::{Site, dump, path, until};
use serde_json::json;

#[test]
fn a_labelled_job_in_a_namespace_with_a_default_database_gets_a_copy_and_leaves_nothing() {
    let site = Site::get();
    let database = site.database("ci");
    let room = site.room("ci");
    database.ingest("1.sql", &dump(10, "for tests"));
    site.kube.merge(
        &path("namespaces", "", &room.name),
        &json!({"metadata": {"annotations": {"aldaas/database": database.name}}}),
    );
    let before = site.settled_census();
    // What a CI system runs: the engine, a test against it, and an exit code.
    let script = format!(
        "docker-entrypoint.sh postgres & until pg_isready -q -U postgres; do sleep 0.1; done; \
         test \"$(psql -U postgres -d {} -Atc 'SELECT count(*) FROM orders')\" = 10",
        database.name
    );
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "test", "namespace": room.name},
        "spec": {"backoffLimit": 0, "template": room.pod("test", json!({}))},
    });
    let template = &mut job["spec"]["template"];
    template["metadata"] = json!({"labels": {"app": "test", "aldaas/db": "latest"}});
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["containers"][0]["command"] = json!(["bash", "-c", script]);
    template["spec"]["containers"][0].as_object_mut().unwrap().remove("readinessProbe");
    for key in ["apiVersion", "kind"] {
        template.as_object_mut().unwrap().remove(key);
    }
    site.kube.create(&job).unwrap();
    until("the job is done", || {
        let status = site.kube.get(&path("jobs", &room.name, "test"))?["status"].clone();
        assert!(status["failed"].is_null(), "the job failed: {status}");
        (status["succeeded"] == 1).then_some(())
    });
    // The pod stays, to be read by people; its clone does not.
    site.assert_nothing_left(&before);
}
