//! The cluster goes away in the middle.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;

use aldaas_testbed::{Daemon, Testbed};
use common::{Bed, endless_ingest, refusal};

#[test]
fn a_cluster_that_goes_away_during_an_ingest_ends_it_and_doctor_cleans_up_later() {
    let own = Testbed::own_cluster_without_s3();
    let bed = Bed::on(&own);
    let latest = bed.ingest_small();
    let before = bed.census();
    let ingest = endless_ingest(&bed);
    own.stop(Daemon::Osd);
    // Something to write for the engine, which it can't.
    let mut stdin = ingest.stdin.as_ref().unwrap();
    let _ =
        stdin.write_all("CREATE TABLE more AS SELECT generate_series(1, 500000);\nCHECKPOINT;\n".as_bytes());
    let output = ingest.wait_with_output().unwrap();
    let error = refusal(&output, "ingest");
    assert!(error.contains("Ceph cluster stopped answering"), "{error}");
    assert_eq!(output.status.code(), Some(75));
    own.start_again(Daemon::Osd);
    bed.ok(&["doctor", "--clean"]);
    bed.assert_census(&before, "after the cluster was away");
    assert_eq!(bed.latest("orders"), Some(latest));
}
