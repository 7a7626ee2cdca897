//! Reads and writes as futures and with callbacks, dropped midway, from many threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use aldaas_rbd as rbd;

use crate::support::{Bed, MIB};

#[test]
fn what_is_written_is_read() {
    let bed = Bed::new();
    let image = bed.image("a", 16 * MIB);
    let open = bed.golden.open(&image).unwrap();
    let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    open.write(4 * MIB - 50_000, data.clone()).wait().unwrap();
    assert_eq!(
        open.read(4 * MIB - 50_000, data.len()).wait().unwrap(),
        data,
        "over the border of two objects"
    );
    assert_eq!(open.read(8 * MIB, 10).wait().unwrap(), vec![0; 10]);
    assert_eq!(open.read_into(4 * MIB, vec![9; 4]).wait().unwrap(), data[50_000..50_004]);
    open.flush().wait().unwrap();
    open.sync().unwrap();
    open.close().unwrap();
    let open = bed.golden.open_read_only(&image).unwrap();
    assert_eq!(open.read(4 * MIB - 50_000, data.len()).wait().unwrap(), data);
}

#[test]
fn reads_end_at_the_images_end_and_writes_beyond_it_are_refused() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", MIB)).unwrap();
    assert_eq!(open.read(MIB - 10, 100).wait().unwrap().len(), 10);
    assert!(open.read(2 * MIB, 10).wait().unwrap_err().is_invalid());
    assert!(open.write(2 * MIB, vec![1; 10]).wait().unwrap_err().is_invalid());
    assert!(open.read(0, rbd::MAX_IO + 1).wait().unwrap_err().is_invalid());
    assert!(open.read(0, 0).wait().unwrap().is_empty());
    open.write(0, Vec::new()).wait().unwrap();
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", 16 * MIB)).unwrap();
    open.write(0, vec![7; 12 << 20]).wait().unwrap();
    open.discard(4 * MIB, 4 * MIB).wait().unwrap();
    open.write_zeroes(1000, 5000).wait().unwrap();
    assert_eq!(open.read(4 * MIB, 4 << 20).wait().unwrap(), vec![0; 4 << 20]);
    assert_eq!(open.read(1000, 5000).wait().unwrap(), vec![0; 5000]);
    assert_eq!(open.read(6000, 1).wait().unwrap(), [7]);
    assert_eq!(open.used_bytes().unwrap(), 8 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_futures_run_at_once() {
    let bed = tokio::task::spawn_blocking(Bed::new).await.unwrap();
    let image = bed.image("a", 64 * MIB);
    let open = Arc::new(bed.golden.open(&image).unwrap());
    let tasks: Vec<_> = (0..64u64)
        .map(|n| {
            let open = open.clone();
            tokio::spawn(async move {
                let data = vec![n as u8; 64 << 10];
                open.write(n * MIB, data.clone()).await.unwrap();
                open.flush().await.unwrap();
                assert_eq!(open.read(n * MIB, data.len()).await.unwrap(), data);
                open.discard(n * MIB, 64 << 10).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    tokio::task::spawn_blocking(move || {
        drop(open);
        drop(bed);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_future_dropped_midway_loses_nothing_but_its_answer() {
    let bed = tokio::task::spawn_blocking(Bed::new).await.unwrap();
    let image = bed.image("a", 64 * MIB);
    let open = bed.golden.open(&image).unwrap();
    for n in 0..50u64 {
        drop(open.write(n * MIB, vec![n as u8 + 1; 100_000]));
        drop(open.read(n * MIB, 100_000));
        // Polled once, then dropped by the time-out.
        let _ = tokio::time::timeout(Duration::ZERO, open.read(n * MIB, 100_000)).await;
        drop(open.discard(60 * MIB, MIB));
        drop(open.flush());
    }
    // Closing waits for all of them.
    open.close().unwrap();
    let open = bed.golden.open_read_only(&image).unwrap();
    for n in 0..50u64 {
        assert_eq!(open.read(n * MIB, 100_000).await.unwrap(), vec![n as u8 + 1; 100_000]);
    }
}

#[test]
fn an_image_dropped_with_aio_outstanding_is_closed_after_it() {
    let bed = Bed::new();
    let image = bed.image("a", 64 * MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let open = bed.golden.open(&image).unwrap();
    for n in 0..60u64 {
        let done = done.clone();
        open.aio_write(n * MIB, vec![1; 200_000], move |result| {
            result.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    drop(open);
    assert_eq!(done.load(Ordering::SeqCst), 60);
    assert!(bed.golden.watchers(&id).unwrap().is_empty());
}

#[test]
fn callbacks_get_their_buffers_and_errors() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", MIB)).unwrap();
    let (sender, receiver) = mpsc::channel();
    let tell = sender.clone();
    open.aio_write(0, b"hello".to_vec(), move |result| tell.send(result.map(|()| Vec::new())).unwrap());
    receiver.recv().unwrap().unwrap();
    let tell = sender.clone();
    open.aio_read(0, 5, move |result| tell.send(result).unwrap());
    assert_eq!(receiver.recv().unwrap().unwrap(), b"hello");
    let tell = sender.clone();
    open.aio_read(5 * MIB, 5, move |result| tell.send(result).unwrap());
    let error = receiver.recv().unwrap().unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("golden/a"), "{error}");
    let tell = sender.clone();
    open.aio_read(0, rbd::MAX_IO + 1, move |result| tell.send(result).unwrap());
    assert!(receiver.recv().unwrap().unwrap_err().is_invalid());
    for (index, start) in [0, 1, 2].into_iter().enumerate() {
        let tell = sender.clone();
        let done = move |result: rbd::Result<()>| tell.send(result.map(|()| vec![index as u8])).unwrap();
        match start {
            0 => open.aio_discard(0, 4096, done),
            1 => open.aio_write_zeroes(0, 4096, done),
            _ => open.aio_flush(done),
        }
        assert_eq!(receiver.recv().unwrap().unwrap(), [index as u8]);
    }
}

#[test]
fn the_last_owner_may_go_inside_a_callback() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let (cluster, golden) = bed.other_client("golden");
    let open = Arc::new(golden.open(&image).unwrap());
    drop((cluster, golden));
    let (held, (sender, receiver)) = (open.clone(), mpsc::channel());
    let gate = Arc::new(std::sync::Barrier::new(2));
    let wait = gate.clone();
    open.aio_write(0, vec![1; 4096], move |result| {
        wait.wait();
        // With the image goes the connection: neither may be waited for on this thread.
        drop(held);
        sender.send(result).unwrap();
    });
    drop(open);
    gate.wait();
    receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !bed.golden.watchers(&id).unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the image was never closed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn closing_inside_a_callback_is_refused_instead_of_hanging() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let open = bed.golden.open(&image).unwrap();
    let other = bed.golden.open(&image).unwrap();
    let (sender, receiver) = mpsc::channel();
    open.aio_flush(move |_| sender.send(other.close()).unwrap());
    let error = receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
    assert!(error.to_string().contains("callback"), "{error}");
    open.close().unwrap();
}

#[test]
fn a_panic_in_a_callback_stays_there() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", MIB)).unwrap();
    open.aio_flush(|_| panic!("on purpose"));
    open.write(0, vec![1; 512]).wait().unwrap();
    open.close().unwrap();
}

#[test]
fn threads_share_a_connection_and_an_image() {
    let bed = Bed::new();
    let image = bed.image("a", 64 * MIB);
    let open = bed.golden.open(&image).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (open, bed, image) = (&open, &bed, &image);
            scope.spawn(move || {
                for n in 0..8 {
                    let offset = (thread * 8 + n) * MIB;
                    open.write(offset, vec![thread as u8 + 1; 4096]).wait().unwrap();
                    assert_eq!(open.size().unwrap(), 64 * MIB);
                    let reader = bed.golden.open_read_only(image).unwrap();
                    assert_eq!(reader.read(offset, 4096).wait().unwrap(), vec![thread as u8 + 1; 4096]);
                    assert!(!bed.golden.images().unwrap().is_empty());
                }
            });
        }
    });
    assert_eq!(open.used_bytes().unwrap(), 64 * MIB);
}
