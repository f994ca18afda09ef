//! What a program without std must bring itself. This one is only built, never run: nothing is allocated, nothing panics.

use core::alloc::{GlobalAlloc, Layout};
use core::hint::spin_loop;
use core::panic::PanicInfo;
use core::ptr::null_mut;

/// An allocator without memory.
struct NoMemory;

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without it; this one hands out null, which is always allowed"
)]
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        null_mut()
    }

    unsafe fn dealloc(&self, _memory: *mut u8, _layout: Layout) {}
}

#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    loop {
        spin_loop();
    }
}
