//! Ceph: the connection, and what is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_api::GoldenImageName;
use aldaas_golden::record::GoldenRecord;
use aldaas_golden::{Error, GOLDEN, KnownClones, State, Store};
use aldaas_rbd as rbd;

/// Clones are counted at most so often.
const COUNT: Duration = Duration::from_secs(5);
/// How many clones are read side by side.
const READERS: usize = 8;

/// How many clones live on which golden image.
pub type Counts = Arc<BTreeMap<GoldenImageName, usize>>;

/// Ceph, which may be away.
pub struct Storage {
    options: rbd::ConnectOptions,
    pool: rbd::PoolName,
    open: Mutex<Option<Open>>,
    known: KnownClones,
    counted: Mutex<Option<(Instant, Counts)>>,
    measured: Mutex<BTreeMap<GoldenImageName, u64>>,
}

#[derive(Clone)]
struct Open {
    store: Store,
    golden: rbd::Namespace,
}

/// A golden image as it is in RBD, or in its trash.
#[derive(Clone, Debug)]
pub struct Found {
    /// What its metadata says.
    pub record: GoldenRecord,
    /// It is in the trash.
    pub trashed: bool,
}

/// Everything in RBD that matters.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// Golden images; retired ones are there until they are gone for good.
    pub images: BTreeMap<GoldenImageName, Found>,
    /// How many clones live on them.
    pub clones: Counts,
}

impl Storage {
    /// Connects only when it is asked for something.
    pub fn new(options: rbd::ConnectOptions, pool: rbd::PoolName) -> Self {
        Self {
            options,
            pool,
            open: Mutex::new(None),
            known: KnownClones::default(),
            counted: Mutex::new(None),
            measured: Mutex::new(BTreeMap::new()),
        }
    }

    /// Does `work` with the pool, on a thread that may block. Where somebody has cut this client off, it is done again with a new
    /// connection.
    ///
    /// # Errors
    /// As `work`, or when Ceph can't be reached.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Fn(&Store) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        self.blocking(move |open, _| work(&open.store)).await
    }

    /// What is there.
    ///
    /// # Errors
    /// When Ceph can't be reached.
    pub async fn stock(self: &Arc<Self>) -> Result<Stock, Error> {
        self.blocking(|open, storage| {
            let mut stock = Stock { clones: storage.count(&open.store)?, ..Stock::default() };
            // What is retired meanwhile is seen in both places, or in the trash, but never in none.
            for image in open.store.golden_images()? {
                stock.images.insert(image.name, Found { record: image.record, trashed: false });
            }
            for entry in open.golden.trash()? {
                let Ok(name) = entry.name.parse::<GoldenImageName>() else { continue };
                let record = match open.golden.metadata(&entry.id) {
                    Ok(metadata) => GoldenRecord::read(&metadata),
                    Err(error) if error.is_not_found() => None,
                    Err(error) => return Err(error.into()),
                };
                // What never became of use lies there for a moment only.
                if let Some(record) = record.filter(|record| record.state == State::Retired) {
                    stock.images.insert(name, Found { record, trashed: true });
                }
            }
            Ok(stock)
        })
        .await
    }

    /// Bytes that a golden image takes, if that was measured.
    pub fn used(&self, name: &GoldenImageName) -> Option<u64> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Measures how many bytes these golden images take, each of which has to be opened for that: so only what nobody knows yet
    /// is measured, and nothing waits for it. One that is gone meanwhile is passed over.
    ///
    /// # Errors
    /// When Ceph can't be reached.
    pub async fn measure(self: &Arc<Self>, names: Vec<GoldenImageName>) -> Result<(), Error> {
        self.blocking(move |open, storage| {
            for name in &names {
                let image = name.to_string().parse::<rbd::ImageName>()?;
                let used = match open.golden.open_read_only(&image).and_then(|image| image.used_bytes()) {
                    Err(error) if error.is_not_found() => continue,
                    other => other?,
                };
                let mut measured = storage.measured.lock().unwrap_or_else(PoisonError::into_inner);
                measured.insert(name.clone(), used);
            }
            Ok(())
        })
        .await
    }

    fn count(&self, store: &Store) -> Result<Counts, Error> {
        let lock = || self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, counted)) = &*lock()
            && at.elapsed() < COUNT
        {
            return Ok(counted.clone());
        }
        let mut counts = BTreeMap::new();
        for clone in store.list_clones(READERS, &self.known)? {
            if let Some(record) = clone.record {
                *counts.entry(record.golden_image).or_insert(0) += 1;
            }
        }
        let counts = Arc::new(counts);
        *lock() = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Fn(&Open, &Self) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let (storage, span) = (self.clone(), tracing::Span::current());
        let work = move || match work(&storage.open()?, &storage) {
            Err(Error::Rbd(error)) if error.is_blocklisted() => {
                tracing::warn!(%error, "this client was cut off by the cluster; connecting anew");
                storage.forget();
                work(&storage.open()?, &storage)
            }
            other => other,
        };
        let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn open(&self) -> Result<Open, Error> {
        // Held while connecting: the others wait for the one connection rather than make their own.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let cluster = rbd::Cluster::connect(&self.options)?;
        let store = Store::open(&cluster, &self.pool)?;
        let golden = cluster.pool(&self.pool)?.namespace(GOLDEN)?;
        tracing::info!(cluster = cluster.fsid(), pool = %self.pool, "connected to Ceph");
        Ok(open.insert(Open { store, golden }).clone())
    }

    fn forget(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
