//! What the work under measurement holds, apart from what it runs against: an allocator that counts, and marks whose each block is.
//!
//! Only a program that names [`Counting`] as its allocator counts; elsewhere the marks cost nothing and the counts are 0.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    pin::Pin,
    sync::atomic::{AtomicIsize, Ordering},
    task::{Context, Poll},
};

thread_local! {
    /// Whether what is allocated now belongs to the work.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// The system's allocator, with a mark before each block.
pub(crate) struct Counting;

/// Room for the mark that keeps the block aligned.
fn room(layout: Layout) -> usize {
    layout.align().max(size_of::<usize>())
}

fn padded(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size().checked_add(room(layout))?, room(layout)).ok()
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one leaves everything but the mark to the system's"
)]
// SAFETY: blocks are the system's, larger by a multiple of their alignment and handed out from behind the mark; `dealloc` gets the layout
// that `alloc` got, so it finds the mark and the system's block again.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = padded(layout) else { return std::ptr::null_mut() };
        // SAFETY: the layout is not empty, because of the mark.
        let block = unsafe { System.alloc(whole) };
        if block.is_null() {
            return block;
        }
        let inside = INSIDE.try_with(Cell::get).unwrap_or(false);
        if inside {
            let size = layout.size().cast_signed();
            PEAK.fetch_max(HELD.fetch_add(size, Ordering::Relaxed) + size, Ordering::Relaxed);
        }
        // SAFETY: the block has room for the mark at its start, and `room` bytes before the part that is handed out.
        unsafe {
            block.write(u8::from(inside));
            block.add(room(layout))
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some(whole) = padded(layout) else { return };
        // SAFETY: `alloc` put the mark there, and the block is as large as it was asked for.
        unsafe {
            let block = at.sub(room(layout));
            if block.read() == 1 {
                HELD.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
            }
            System.dealloc(block, whole);
        }
    }
}

/// Bytes held, at most since the last [`forget_peak`].
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed).max(0).cast_unsigned()
}

/// The peak is what is held now.
pub(crate) fn forget_peak() {
    PEAK.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
}

fn with<T>(inside: bool, work: impl FnOnce() -> T) -> T {
    let before = INSIDE.replace(inside);
    let value = work();
    INSIDE.set(before);
    value
}

/// What `work` allocates is not the work's under measurement.
pub(crate) fn outside<T>(work: impl FnOnce() -> T) -> T {
    with(false, work)
}

/// A future whose allocations are counted as the work's, or as not the work's.
pub(crate) struct Marked<F> {
    inside: bool,
    future: Pin<Box<F>>,
}

/// What `future` allocates is the work's.
pub(crate) fn inside<F: Future>(future: F) -> Marked<F> {
    Marked { inside: true, future: Box::pin(future) }
}

/// What `future` allocates is not the work's.
pub(crate) fn behind<F: Future>(future: F) -> Marked<F> {
    Marked { inside: false, future: outside(|| Box::pin(future)) }
}

impl<F: Future> Future for Marked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        with(self.inside, || self.future.as_mut().poll(context))
    }
}
