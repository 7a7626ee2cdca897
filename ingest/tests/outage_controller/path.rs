//! From a dump in a bucket to a golden image, and what becomes of those that are no good.

use kube::ResourceExt as _;
use serde_json::json;

use crate::bed::{BAD_DUMP, Bed, DUMP, condition};
use crate::machine::DIGEST;

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_becomes_a_golden_image_and_a_bad_one_leaves_it_latest() {
    let bed = Bed::new().await;
    let controller = bed.controller();
    bed.database("orders", &json!({})).await;
    bed.until("the empty bucket is seen", async || {
        (bed.says("orders", "Reachable").await.1 == "Empty").then_some(())
    })
    .await;
    bed.put("orders/1.sql", DUMP);
    assert_eq!(bed.notify("orders/1.sql").await, 200);
    let first = bed.ready("orders", 1).await;
    let status = first.status.clone().unwrap();
    assert_eq!(status.evidence.unwrap().rows, 100);
    assert_eq!(first.spec.source.location, format!("s3://{}/orders/1.sql", bed.bucket));
    for kind in ["Restored", "Sealed", "Verified", "Ready"] {
        assert_eq!(condition(&first, kind).0, "True", "{kind}");
    }
    bed.assert_clean().await;
    assert_eq!(status.engine.unwrap().image_digest.as_deref(), Some(DIGEST));
    let used = async || bed.images().get(&first.name_any()).await.unwrap().status?.used_bytes;
    let used = bed.until("what it takes in Ceph is counted", used).await;
    assert!((1 << 20..1 << 30).contains(&used), "some of the volume, and not all of it: {used}");
    let latest = async || bed.databases().get("orders").await.unwrap().status.unwrap().latest;
    bed.until("it is latest", async || (latest().await == Some(first.name_any())).then_some(())).await;

    bed.put("orders/2.sql", BAD_DUMP);
    bed.notify("orders/2.sql").await;
    let bad = bed.reason("orders", "Failed").await;
    assert!(condition(&bad, "Ready").2.contains("custmer"), "{bad:?}");
    assert_eq!(latest().await, Some(first.name_any()));
    let events = bed.events_about(&bad.name_any()).await;
    assert!(events.contains(&"IngestFailed".to_owned()), "{events:?}");
    bed.assert_clean().await;
    controller.stop().await;
}
