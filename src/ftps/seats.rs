//! Threads for data connections, each with a runtime of its own.
//!
//! On the common runtime every segment that arrives wakes an idle worker, which finds that another one is at work on
//! that connection: a twentieth of an upload's time. Nothing wakes a thread of these while it is at work. What comes is
//! decrypted and, in large pieces, hashed here: the disk's thread would be what an upload waits for. None of them may wait
//! for a disk, nor decide anything that hangs on the control connection, which is on the common runtime.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use tokio::runtime::{Builder, Handle};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// The threads, one for each core.
pub(super) struct Seats {
    first: Arc<Thread>,
    others: Vec<Arc<Thread>>,
}

struct Thread {
    runtime: Handle,
    seats: AtomicUsize,
}

/// A data connection's seat: its bytes move on this thread.
pub(super) struct Seat(Arc<Thread>);

impl Seats {
    /// Starts the threads, which last as long as the process.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let others = (1..cores).map(|_| Thread::start()).collect::<io::Result<_>>()?;
        Ok(Self { first: Thread::start()?, others })
    }

    /// A seat on the thread that has the fewest.
    pub(super) fn seat(&self) -> Seat {
        let taken = |thread: &Arc<Thread>| thread.seats.load(Ordering::Relaxed);
        let fewer = |a, b| if taken(b) < taken(a) { b } else { a };
        let thread = self.others.iter().fold(&self.first, fewer);
        thread.seats.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(thread))
    }
}

impl Thread {
    fn start() -> io::Result<Arc<Self>> {
        let (tell, told) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("ftps-data".to_owned());
        thread.spawn(move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                tell.send(Ok(runtime.handle().clone())).ok();
                runtime.block_on(std::future::pending::<()>());
            }
            Err(error) => drop(tell.send(Err(error))),
        })?;
        let runtime = told.recv().map_err(io::Error::other)??;
        Ok(Arc::new(Self { runtime, seats: AtomicUsize::new(0) }))
    }
}

impl Seat {
    /// Runs something on this thread.
    pub(super) fn spawn<F>(&self, tasks: &TaskTracker, work: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        AbortOnDropHandle::new(tasks.spawn_on(work, &self.0.runtime))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}
