//! Any interleaving of repeated, concurrent and cancelled calls ends as a small model says.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use aldaas_csi::proto::csi::NodeUnpublishVolumeRequest;
use common::{Bed, HELLO, Plugin, eventually, is_mounted, timed};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tonic::{Code, Status};

const LATEST: &[(&str, &str)] = &[("db", "orders:latest")];
const VOLUMES: [&str; 2] = ["a", "b"];

#[derive(Clone, Copy, Debug)]
enum Verb {
    Publish,
    Unpublish,
}

/// A call; its caller goes after so many milliseconds, if it says so.
#[derive(Clone, Copy, Debug)]
struct Call {
    verb: Verb,
    volume: usize,
    gone_after: Option<u64>,
}

fn calls() -> impl Strategy<Value = Vec<Vec<Call>>> {
    let verb = prop_oneof![3 => Just(Verb::Publish), 2 => Just(Verb::Unpublish)];
    let gone = prop_oneof![2 => Just(None), 1 => (0u64..120).prop_map(Some)];
    let call = (verb, 0..VOLUMES.len(), gone).prop_map(|(verb, volume, gone_after)| Call {
        verb,
        volume,
        gone_after,
    });
    prop::collection::vec(prop::collection::vec(call, 1..5), 1..4)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_interleaving_of_calls_ends_as_the_model_says() {
    let bed = Bed::new();
    let before = bed.census();
    // The same cases in every run: a failure can be looked at again.
    let config = Config { cases: 10, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    tokio::task::block_in_place(|| {
        let runtime = tokio::runtime::Handle::current();
        TestRunner::new_with_rng(config, rng)
            .run(&calls(), |rounds| {
                runtime.block_on(async {
                    for round in &rounds {
                        let answers = run(&bed.plugin, round).await;
                        check(&bed, round, &answers);
                        // The work of those who have gone ends before the next round: an unpublish waits for it.
                        for (call, _) in round.iter().zip(&answers).filter(|(_, answer)| answer.is_none()) {
                            bed.plugin.unpublish(VOLUMES[call.volume]).await.unwrap();
                        }
                    }
                    for volume in VOLUMES {
                        bed.plugin.unpublish(volume).await.unwrap();
                    }
                });
                Ok(())
            })
            .unwrap();
    });
    bed.assert_census(&before, "after all cases");
}

/// All calls of a round at once; none is the answer to one whose caller has gone.
async fn run(plugin: &Plugin, round: &[Call]) -> Vec<Option<Result<(), Status>>> {
    let calls: Vec<_> = round
        .iter()
        .map(|call| {
            let (mut client, volume) = (plugin.client(), VOLUMES[call.volume]);
            let (publish, target) = (plugin.request(volume, LATEST), plugin.target(volume));
            let (verb, gone) = (call.verb, Duration::from_millis(call.gone_after.unwrap_or(60_000)));
            tokio::spawn(async move {
                let work = async move {
                    match verb {
                        Verb::Publish => client.node_publish_volume(timed(publish)).await.map(drop),
                        Verb::Unpublish => {
                            let target_path = target.display().to_string();
                            let request =
                                NodeUnpublishVolumeRequest { volume_id: common::id(volume), target_path };
                            client.node_unpublish_volume(timed(request)).await.map(drop)
                        }
                    }
                };
                tokio::time::timeout(gone, work).await.ok()
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

fn check(bed: &Bed, round: &[Call], answers: &[Option<Result<(), Status>>]) {
    for (index, volume) in VOLUMES.iter().enumerate() {
        let of: Vec<_> = round.iter().zip(answers).filter(|(call, _)| call.volume == index).collect();
        let (mut published, mut unpublished, mut unknown) = (0, 0, 0);
        for (call, answer) in &of {
            match (call.verb, answer) {
                (_, None) => unknown += 1,
                (Verb::Publish, Some(Ok(()))) => published += 1,
                // Another call for the volume was at it.
                (Verb::Publish, Some(Err(status))) if status.code() == Code::Aborted && of.len() > 1 => {}
                (Verb::Publish, Some(Err(status))) => panic!("{volume}: publish: {status:?}"),
                (Verb::Unpublish, Some(answer)) => {
                    answer.as_ref().unwrap();
                    unpublished += 1;
                }
            }
        }
        let target = bed.plugin.target(volume);
        // Whole or not at all: the work of those who have gone comes to its end, too.
        eventually("a volume is there with its clone, or neither is", || {
            let has_clone = bed.golden.clone_names().contains(&Plugin::handle(volume));
            let mounted = is_mounted(&target);
            has_clone == mounted && mounted == target.exists()
        });
        if unknown == 0 && published > 0 && unpublished == 0 {
            assert_eq!(std::fs::read_to_string(target.join("hello")).unwrap(), HELLO, "{volume}: published");
        }
        if unknown == 0 && unpublished > 0 && published == 0 {
            assert!(!is_mounted(&target), "{volume}: unpublished");
        }
    }
}
