//! State that the kernel keeps with a task and frees with it.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type, task_struct,
};
use aya_ebpf::helpers::generated::bpf_task_storage_get;

/// A map of one value a task; zeroes until it is written.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: its fields only describe the map to the loader; nothing ever follows them.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    /// A description for the loader.
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// The value of `task`, made if there is none; `None` if there is no memory for it, or another
    /// program was stopped in the middle of making one.
    #[inline(always)]
    pub fn of(&self, task: *mut task_struct) -> Option<*mut T> {
        let map = ptr::from_ref(self).cast_mut().cast::<c_void>();
        let flags = u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE);
        // SAFETY: `map` is the map; the verifier checks that `task` is a task's typed pointer.
        let value = unsafe { bpf_task_storage_get(map, task, ptr::null_mut(), flags) };
        if value.is_null() { None } else { Some(value.cast()) }
    }
}
