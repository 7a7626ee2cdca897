//! Who may not read a database cannot clone it.

use aldaas_e2e::{Site, dump};
use serde_json::json;

#[test]
fn whoever_has_no_access_is_denied_at_admission_and_where_he_wrote_the_volume_himself_at_publish() {
    let site = Site::get();
    let database = site.database("secret");
    let (friend, stranger) = (site.room("friend"), site.room("stranger"));
    let selector = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": friend.name}}, "contact": "the data team"});
    database.change(json!({"access": selector}));
    database.ingest("1.sql", &dump(10, "secret"));
    let before = site.settled_census();
    let latest = format!("{}:latest", database.name);

    let denied = site.kube.create(&stranger.pod("web", json!({"aldaas/db": latest}))).unwrap_err();
    assert!(denied.contains("the data team"), "{denied}");

    let mut by_hand = stranger.pod("by-hand", json!({}));
    by_hand["spec"]["volumes"] = json!([{
        "name": "data", "csi": {"driver": "csi.aldaas.dev", "volumeAttributes": {"db": latest}},
    }]);
    by_hand["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/var/lib/postgresql/data"}]);
    site.kube.create(&by_hand).unwrap();
    let said = stranger.until_event("by-hand", "the data team");
    assert!(said.contains("PermissionDenied"), "{said}");
    assert!(stranger.ready_pods("by-hand").is_empty());

    let mut friendly = friend.pod("web", json!({"aldaas/db": latest}));
    friendly["spec"]["terminationGracePeriodSeconds"] = json!(1);
    site.kube.create(&friendly).unwrap();
    friend.until_ready("web", 1);
    friend.remove("pods", "web");
    stranger.remove("pods", "by-hand");
    site.assert_nothing_left(&before);
}
