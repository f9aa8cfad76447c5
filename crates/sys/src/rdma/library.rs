//! libibverbs, found when it is first wanted: a node without it starts as well and says so. Called by [`super::device`]
//! and [`super::pair`].
#![expect(unsafe_code, reason = "functions of a library that is opened at run time")]

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use super::ffi;

/// Its functions. They live as long as the process: the library is never closed.
pub(super) struct Library {
    pub(super) devices: ffi::GetDevices,
    pub(super) free_devices: ffi::FreeDevices,
    pub(super) device_name: ffi::DeviceName,
    pub(super) open: ffi::OpenDevice,
    pub(super) close: ffi::CloseDevice,
    pub(super) query_port: ffi::QueryPort,
    pub(super) allocate_domain: ffi::AllocateDomain,
    pub(super) free_domain: ffi::FreeDomain,
    pub(super) register: ffi::Register,
    pub(super) unregister: ffi::Unregister,
    pub(super) create_channel: ffi::CreateChannel,
    pub(super) destroy_channel: ffi::DestroyChannel,
    pub(super) create_queue: ffi::CreateQueue,
    pub(super) destroy_queue: ffi::DestroyQueue,
    pub(super) event: ffi::GetEvent,
    pub(super) acknowledge: ffi::AcknowledgeEvents,
    pub(super) async_event: ffi::GetAsyncEvent,
    pub(super) acknowledge_async: ffi::AcknowledgeAsyncEvent,
    pub(super) create_pair: ffi::CreatePair,
    pub(super) modify_pair: ffi::ModifyPair,
    pub(super) destroy_pair: ffi::DestroyPair,
}

/// The library, or why there is none, for the operator.
pub(super) fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(open).as_ref().map_err(String::as_str)
}

macro_rules! functions {
    ($handle:expr; $($field:ident: $type:ty = $name:literal,)*) => {
        Ok(Library {$(
            $field: {
                let found = symbol($handle, $name)?;
                // SAFETY: the function of that name has had this signature in every libibverbs.so.1 (see `ffi`).
                unsafe { std::mem::transmute::<*mut c_void, $type>(found) }
            },
        )*})
    };
}

fn open() -> Result<Library, String> {
    // SAFETY: the name ends with a zero; what the library's constructors do (they register drivers) needs no care.
    let handle = unsafe { libc::dlopen(NAME.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err("there is no libibverbs.so.1 (Debian: libibverbs1 and ibverbs-providers)".to_owned());
    }
    functions! { handle;
        devices: ffi::GetDevices = c"ibv_get_device_list",
        free_devices: ffi::FreeDevices = c"ibv_free_device_list",
        device_name: ffi::DeviceName = c"ibv_get_device_name",
        open: ffi::OpenDevice = c"ibv_open_device",
        close: ffi::CloseDevice = c"ibv_close_device",
        query_port: ffi::QueryPort = c"ibv_query_port",
        allocate_domain: ffi::AllocateDomain = c"ibv_alloc_pd",
        free_domain: ffi::FreeDomain = c"ibv_dealloc_pd",
        register: ffi::Register = c"ibv_reg_mr",
        unregister: ffi::Unregister = c"ibv_dereg_mr",
        create_channel: ffi::CreateChannel = c"ibv_create_comp_channel",
        destroy_channel: ffi::DestroyChannel = c"ibv_destroy_comp_channel",
        create_queue: ffi::CreateQueue = c"ibv_create_cq",
        destroy_queue: ffi::DestroyQueue = c"ibv_destroy_cq",
        event: ffi::GetEvent = c"ibv_get_cq_event",
        acknowledge: ffi::AcknowledgeEvents = c"ibv_ack_cq_events",
        async_event: ffi::GetAsyncEvent = c"ibv_get_async_event",
        acknowledge_async: ffi::AcknowledgeAsyncEvent = c"ibv_ack_async_event",
        create_pair: ffi::CreatePair = c"ibv_create_qp",
        modify_pair: ffi::ModifyPair = c"ibv_modify_qp",
        destroy_pair: ffi::DestroyPair = c"ibv_destroy_qp",
    }
}

fn symbol(handle: *mut c_void, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: the handle is open and the name ends with a zero.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if found.is_null() {
        return Err(format!("libibverbs.so.1 has no function {}: it is too old", name.to_string_lossy()));
    }
    Ok(found)
}

const NAME: &CStr = c"libibverbs.so.1";
