//! The single-thread executor: tasks in recycled memory, a run queue, wakers that are two numbers.
//!
//! What holds here:
//! * A task's memory comes from per-thread free lists by size, so that starting one in steady state allocates nothing.
//! * A [`TaskRef`] is index and generation: waking a task that has ended does nothing.
//! * A panic ends its task, not its thread; it is counted.
//! * Ring futures must be polled by this executor directly (they remember the running task, not the waker).
//!
//! Deliberately absent: work stealing, join handles, priorities between tasks (the next step's classes go in
//! [`Exec::ready`]).

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::chunked::Chunked;

/// Names a task of this thread; stale once the task has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TaskRef {
    index: u32,
    generation: u32,
}

impl TaskRef {
    /// Nobody.
    pub(crate) const NONE: Self = Self { index: u32::MAX, generation: 0 };

    #[cfg(test)]
    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    #[cfg(test)]
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// Nobody is waiting.
    pub(crate) fn is_none(self) -> bool {
        self.index == u32::MAX
    }
}

pub(crate) struct Exec {
    tasks: RefCell<Chunked<Slot>>,
    free: RefCell<Vec<u32>>,
    queue: RefCell<VecDeque<TaskRef>>,
    current: Cell<TaskRef>,
    live: Cell<usize>,
    panics: Cell<u64>,
    polls: Cell<u64>,
}

struct Slot {
    generation: u32,
    state: State,
    body: Option<Body>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Idle,
    Queued,
    Running,
    /// Woken while it ran: runs again.
    RunningWoken,
}

impl Exec {
    pub(crate) fn new() -> Self {
        Self {
            tasks: RefCell::default(),
            free: RefCell::default(),
            queue: RefCell::default(),
            current: Cell::new(TaskRef::NONE),
            live: Cell::new(0),
            panics: Cell::new(0),
            polls: Cell::new(0),
        }
    }

    /// Starts a task; it first runs in the coming round.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskRef {
        let body = Body::new(future);
        let mut tasks = self.tasks.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            tasks.push(Slot { generation: 0, state: State::Idle, body: None });
            (tasks.len() - 1) as u32
        });
        let slot = &mut tasks[index as usize];
        slot.body = Some(body);
        slot.state = State::Queued;
        let task = TaskRef { index, generation: slot.generation };
        self.live.set(self.live.get() + 1);
        self.queue.borrow_mut().push_back(task);
        task
    }

    /// Puts a task into the run queue, unless it is there already or has ended.
    #[inline]
    pub(crate) fn wake(&self, task: TaskRef) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(slot) = tasks.get_mut(task.index as usize).filter(|slot| slot.generation == task.generation) else {
            return;
        };
        match slot.state {
            State::Idle if slot.body.is_some() => {
                slot.state = State::Queued;
                self.queue.borrow_mut().push_back(task);
            }
            State::Running => slot.state = State::RunningWoken,
            State::Idle | State::Queued | State::RunningWoken => {}
        }
    }

    /// The task that runs now.
    #[inline]
    pub(crate) fn current(&self) -> TaskRef {
        self.current.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Tasks alive, and how many have panicked since the start.
    pub(crate) fn counts(&self) -> (usize, u64) {
        (self.live.get(), self.panics.get())
    }

    /// Task polls since the start.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Whether the task has not ended yet.
    pub(crate) fn alive(&self, task: TaskRef) -> bool {
        self.tasks.borrow().get(task.index as usize).is_some_and(|slot| slot.generation == task.generation)
    }

    /// Runs what is ready now, once each; what becomes ready meanwhile waits for the next round, so that completions
    /// are reaped in between.
    pub(crate) fn run_round(&self) {
        let count = self.queue.borrow().len();
        for _ in 0..count {
            let Some(task) = self.queue.borrow_mut().pop_front() else { return };
            self.run(task);
        }
    }

    fn run(&self, task: TaskRef) {
        let Some(mut body) = self.begin(task) else { return };
        self.polls.set(self.polls.get() + 1);
        let waker = waker_of(task);
        self.current.set(task);
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll(&mut Context::from_waker(&waker))));
        self.current.set(TaskRef::NONE);
        match polled {
            Ok(Poll::Pending) => self.pause(task, body),
            Ok(Poll::Ready(())) => self.end(task, body),
            Err(_) => {
                self.panics.set(self.panics.get() + 1);
                self.end(task, body);
            }
        }
    }

    /// Takes the body out for the poll, so that nothing is borrowed while the task runs.
    fn begin(&self, task: TaskRef) -> Option<Body> {
        let mut tasks = self.tasks.borrow_mut();
        let slot = &mut tasks[task.index as usize];
        if slot.generation != task.generation {
            return None;
        }
        slot.state = State::Running;
        slot.body.take()
    }

    fn pause(&self, task: TaskRef, body: Body) {
        let mut tasks = self.tasks.borrow_mut();
        let slot = &mut tasks[task.index as usize];
        slot.body = Some(body);
        if slot.state == State::RunningWoken {
            slot.state = State::Queued;
            self.queue.borrow_mut().push_back(task);
        } else {
            slot.state = State::Idle;
        }
    }

    fn end(&self, task: TaskRef, body: Body) {
        {
            let mut tasks = self.tasks.borrow_mut();
            let slot = &mut tasks[task.index as usize];
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = State::Idle;
        }
        self.live.set(self.live.get() - 1);
        // Dropped before its slot is free again: what the future holds may wake or spawn others.
        drop(body);
        self.free.borrow_mut().push(task.index);
    }

    /// Drops every task, whatever it waits for. For the end of a thread.
    pub(crate) fn clear(&self) {
        let count = self.tasks.borrow().len();
        for index in 0..count {
            let taken = {
                let mut tasks = self.tasks.borrow_mut();
                let slot = &mut tasks[index];
                slot.body.take().map(|body| (TaskRef { index: index as u32, generation: slot.generation }, body))
            };
            if let Some((task, body)) = taken {
                self.end(task, body);
            }
        }
        self.queue.borrow_mut().clear();
    }
}

/// A pinned future in recycled memory: for a part of a task that is large and short-lived, so that the task itself
/// stays small while it waits for the next one.
pub struct Pooled<F: Future> {
    future: NonNull<F>,
}

/// Moves `future` into recycled memory.
#[inline]
pub fn pooled<F: Future>(future: F) -> Pooled<F> {
    Pooled { future: moved(future) }
}

/// Moves `future` into a block. What it has not begun to use of itself need not be copied, if nobody would have to drop it on the way.
#[inline]
fn moved<F: Future>(future: F) -> NonNull<F> {
    let future = ManuallyDrop::new(future);
    let memory = take_block(Layout::new::<F>());
    // SAFETY: the block is valid for `F`'s layout and nobody else's; `ManuallyDrop<F>` has that layout.
    unsafe { memory.cast::<ManuallyDrop<F>>().write(future) };
    memory.cast()
}

impl<F: Future> Future for Pooled<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future lives in its block until `drop` and never moves; `&mut self` is the only way to it.
        unsafe { Pin::new_unchecked(self.get_mut().future.as_mut()) }.poll(cx)
    }
}

impl<F: Future> Drop for Pooled<F> {
    fn drop(&mut self) {
        // SAFETY: written in `pooled`, dropped only here; the block goes back with the layout it was taken with.
        unsafe {
            self.future.drop_in_place();
            give_block(self.future.cast(), Layout::new::<F>());
        }
    }
}

/// A task's future, its type forgotten.
struct Body {
    memory: NonNull<u8>,
    methods: &'static Methods,
}

struct Methods {
    poll: unsafe fn(NonNull<u8>, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<u8>),
    layout: Layout,
}

impl Body {
    fn new<F: Future<Output = ()> + 'static>(future: F) -> Self {
        Self {
            memory: moved(future).cast(),
            methods: const {
                &Methods {
                    // SAFETY: called by `Body` only, with the memory that holds an `F`, which never moves from there.
                    poll: |memory, cx| unsafe { Pin::new_unchecked(memory.cast::<F>().as_mut()) }.poll(cx),
                    // SAFETY: called once, by `Body::drop`.
                    drop: |memory| unsafe { memory.cast::<F>().drop_in_place() },
                    layout: Layout::new::<F>(),
                }
            },
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `memory` holds the future that `methods` were made for.
        unsafe { (self.methods.poll)(self.memory, cx) }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // SAFETY: as in `poll`; the future is dropped once and its block goes back with its own layout.
        unsafe {
            (self.methods.drop)(self.memory);
            give_block(self.memory, self.methods.layout);
        }
    }
}

/// Block sizes: every 32 bytes up to 512, for tasks that wait by the thousand, then powers of two up to 8 KiB. A larger
/// future is allocated as it is.
const BLOCK_CLASSES: usize = 20;
const BLOCK_STEP: usize = 32;
/// What the allocator gives without rounding up.
const BLOCK_ALIGN: usize = 16;

struct Blocks {
    free: [Vec<NonNull<u8>>; BLOCK_CLASSES],
    /// The fewest free since the last trim.
    unused: [usize; BLOCK_CLASSES],
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for class in 0..BLOCK_CLASSES {
            for memory in self.free[class].drain(..) {
                // SAFETY: free blocks came from `alloc` with their class's layout.
                unsafe { dealloc(memory.as_ptr(), block_layout(class)) };
            }
        }
    }
}

thread_local! {
    static BLOCKS: RefCell<Blocks> = const {
        RefCell::new(Blocks { free: [const { Vec::new() }; BLOCK_CLASSES], unused: [0; BLOCK_CLASSES] })
    };
}

/// Gives back the blocks that nobody needed since the last call.
pub(crate) fn trim_blocks() {
    let _ = BLOCKS.try_with(|blocks| {
        let mut blocks = blocks.borrow_mut();
        for class in 0..BLOCK_CLASSES {
            let surplus = blocks.unused[class] - blocks.unused[class] / 8;
            for memory in blocks.free[class].drain(..surplus) {
                // SAFETY: as in `Blocks::drop`.
                unsafe { dealloc(memory.as_ptr(), block_layout(class)) };
            }
            blocks.unused[class] = blocks.free[class].len();
        }
    });
}

fn block_class(layout: Layout) -> Option<usize> {
    let class = match layout.size() {
        size @ 0..=512 => size.max(1).div_ceil(BLOCK_STEP) - 1,
        size => 6 + size.next_power_of_two().trailing_zeros() as usize,
    };
    (class < BLOCK_CLASSES && layout.align() <= BLOCK_ALIGN).then_some(class)
}

fn block_layout(class: usize) -> Layout {
    let bytes = if class < 16 { (class + 1) * BLOCK_STEP } else { 64 << (class - 12) };
    Layout::from_size_align(bytes, BLOCK_ALIGN).expect("multiples of the alignment")
}

fn take_block(layout: Layout) -> NonNull<u8> {
    let Some(class) = block_class(layout) else { return fresh(layout) };
    let pooled = BLOCKS.try_with(|blocks| {
        let mut blocks = blocks.borrow_mut();
        let memory = blocks.free[class].pop();
        blocks.unused[class] = blocks.unused[class].min(blocks.free[class].len());
        memory
    });
    pooled.ok().flatten().unwrap_or_else(|| fresh(block_layout(class)))
}

fn fresh(layout: Layout) -> NonNull<u8> {
    let layout = if layout.size() == 0 { Layout::new::<u8>() } else { layout };
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// # Safety
///
/// `memory` came from `take_block` with this `layout`, and what it held has been dropped.
unsafe fn give_block(memory: NonNull<u8>, layout: Layout) {
    let Some(class) = block_class(layout) else {
        // SAFETY: layouts without a class are allocated as they are, and are never empty.
        return unsafe { dealloc(memory.as_ptr(), layout) };
    };
    if BLOCKS.try_with(|blocks| blocks.borrow_mut().free[class].push(memory)).is_err() {
        // SAFETY: taken with the class's layout; the thread's lists are gone already.
        unsafe { dealloc(memory.as_ptr(), block_layout(class)) };
    }
}

/// A waker that is the task's index and generation. Woken on another thread, or when no executor runs here, it falls
/// on deaf ears by design: what crosses threads in this crate is the mailbox.
fn waker_of(task: TaskRef) -> Waker {
    let data = (u64::from(task.generation) << 32 | u64::from(task.index)) as usize as *const ();
    // SAFETY: the vtable's functions use the data as a number only, so they are sound on any thread at any time.
    unsafe { Waker::from_raw(RawWaker::new(data, &WAKER)) }
}

static WAKER: RawWakerVTable = RawWakerVTable::new(|data| RawWaker::new(data, &WAKER), wake_raw, wake_raw, |_| ());

fn wake_raw(data: *const ()) {
    let data = data as usize as u64;
    let task = TaskRef { index: data as u32, generation: (data >> 32) as u32 };
    crate::reactor::try_with(|reactor| reactor.exec.wake(task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_future_finds_a_block_that_holds_it() {
        for size in 0..=8_192 {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let block = block_layout(block_class(layout).unwrap());
            assert!(block.size() >= size && block.size() <= (2 * size).max(BLOCK_STEP), "{size} in {}", block.size());
        }
        assert!(block_class(Layout::from_size_align(8_193, 8).unwrap()).is_none());
        assert!(block_class(Layout::from_size_align(64, 64).unwrap()).is_none());
    }
}
