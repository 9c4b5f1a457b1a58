//! Threads for data connections, each with a runtime of its own.
//!
//! On the common runtime every segment that arrives wakes an idle worker, which finds that another one is at work on
//! that connection: a twentieth of an upload's time. Nothing wakes a lane that is at work. Like any runtime's thread it
//! must not wait for a disk; what may is sent to threads for that, or back to the common runtime ([`shielded`]).
//!
//! [`shielded`]: crate::app::shielded

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// One for each core.
pub(super) struct Lanes {
    first: Arc<Lane>,
    others: Vec<Arc<Lane>>,
}

struct Lane {
    runtime: Handle,
    places: AtomicUsize,
}

/// A data connection's place on its lane. It must be polled there from its first moment to its last.
pub(super) struct Place(Arc<Lane>);

impl Lanes {
    /// Starts the threads, which last as long as the process.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let others = (1..cores).map(|_| Lane::start()).collect::<io::Result<_>>()?;
        Ok(Self { first: Lane::start()?, others })
    }

    /// A place on the lane that has the fewest taken.
    pub(super) fn place(&self) -> Place {
        let taken = |lane: &Arc<Lane>| lane.places.load(Ordering::Relaxed);
        let fewer = |a, b| if taken(b) < taken(a) { b } else { a };
        let lane = self.others.iter().fold(&self.first, fewer);
        lane.places.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(lane))
    }
}

impl Lane {
    fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let lane = Self { runtime: runtime.handle().clone(), places: AtomicUsize::new(0) };
        std::thread::Builder::new()
            .name("ftps-data".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Arc::new(lane))
    }
}

impl Place {
    /// Runs something on this lane.
    pub(super) fn spawn<F>(&self, tasks: &TaskTracker, work: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        AbortOnDropHandle::new(tasks.spawn_on(work, &self.0.runtime))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}
