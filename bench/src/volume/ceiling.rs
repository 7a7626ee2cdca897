//! How many small random writes librbd gets out of this cluster by itself: without FUSE, without a loop device, without a
//! cache, and with as many at once as it takes. Whatever is put on top of it writes no faster.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use aldaas_rbd as rbd;
use anyhow::{Context as _, Result};

use super::Bench;

const BLOCK: u64 = 4096;

/// Random writes of 4 KiB per second, `depth` at a time, for `seconds` after a `ramp`. The image is not attached.
pub(super) fn random_writes(
    bench: &Bench,
    image: &str,
    depth: usize,
    (ramp, seconds): (u64, u64),
) -> Result<f64> {
    let overrides = vec![("rbd_cache".to_owned(), "false".to_owned())];
    let ceph = rbd::ConnectOptions { conf: Some(bench.ceph_conf.clone()), overrides, ..Default::default() };
    let pool = rbd::Cluster::connect(&ceph)?.pool(bench.store.pool())?;
    let image = pool.namespace(aldaas_golden::CLONE)?.open(&rbd::ImageName::new(image)?)?;
    let blocks = image.size()? / BLOCK;
    let (done, finished) = mpsc::channel();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut write = || {
        // xorshift: any order without a pattern does
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let done = done.clone();
        image.aio_write(random % blocks * BLOCK, vec![0xa5; BLOCK as usize], move |result| {
            let _ = done.send(result);
        });
    };
    (0..depth).for_each(|_| write());
    let begin = Instant::now() + Duration::from_secs(ramp);
    let end = begin + Duration::from_secs(seconds);
    let mut counted = 0_u64;
    let mut now = Instant::now();
    while now < end {
        finished.recv().context("a write is never answered")??;
        now = Instant::now();
        counted += u64::from(now >= begin);
        write();
    }
    for _ in 0..depth {
        finished.recv().context("a write is never answered")??;
    }
    image.close()?;
    Ok(counted as f64 / seconds as f64)
}
