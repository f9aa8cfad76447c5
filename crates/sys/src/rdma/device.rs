//! An RDMA device: found by name, opened once for the node, and the maker of queue pairs. Called by the door.
#![expect(unsafe_code, reason = "calls of libibverbs")]

use std::ffi::{CStr, c_void};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use dwcp_abi::wire::rdma::PairEnd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::library::{Library, library};
use super::pair::Connected;
use super::raw::Raw;
use super::{PortFacts, QueuePair, RdmaError, ffi, mtu_bytes, sysfs};

/// An open device and one of its ports; shared by all its queue pairs.
pub struct Device {
    pub(super) library: &'static Library,
    context: NonNull<ffi::Context>,
    domain: NonNull<c_void>,
    port: PortFacts,
    mtu: u16,
}

// SAFETY: libibverbs may be called from several threads at once, also on one context (ibv_create_cq(3) and the others
// serialise inside); what is not its own here is immutable.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl std::fmt::Debug for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Device").field("port", &self.port).field("mtu", &self.mtu).finish()
    }
}

/// A queue pair that is not connected yet. It can receive as soon as it is.
#[derive(Debug)]
pub struct Prepared {
    raw: Raw,
    end: PairEnd,
}

impl Device {
    /// Opens the device of this name, or the first with an active port where it is empty.
    ///
    /// # Errors
    /// [`RdmaError::Unavailable`] says what is missing.
    pub fn open(name: &str, port: u8) -> Result<Arc<Self>, RdmaError> {
        let library = library().map_err(|why| RdmaError::Unavailable(why.to_owned()))?;
        let facts = find(name, port)?;
        let context = open(library, &facts.device)?;
        // SAFETY: the context is open.
        let domain = unsafe { (library.allocate_domain)(context.as_ptr()) };
        let Some(domain) = NonNull::new(domain) else {
            let errno = Errno::last();
            // SAFETY: the context is open, and nothing was made in it.
            unsafe { (library.close)(context.as_ptr()) };
            return Err(RdmaError::Call { call: "cannot have a protection domain", errno });
        };
        let mut device = Self { library, context, domain, port: facts, mtu: 0 };
        device.mtu = device.query_mtu()?;
        set_nonblocking(device.alarms())
            .map_err(|errno| RdmaError::Call { call: "cannot hear the device's events", errno })?;
        Ok(Arc::new(device))
    }

    /// The port that it uses.
    #[must_use]
    pub fn port(&self) -> &PortFacts {
        &self.port
    }

    /// Largest packet of the port, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether its port is there and active.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        sysfs::is_active(&self.port.device, self.port.port)
    }

    /// Makes a queue pair. `near` is this node's address of the TCP connection that the ends meet on, `theirs` the other
    /// end where it has spoken already.
    ///
    /// # Errors
    /// [`RdmaError`]: no address fits, or the device or the limit of locked memory has no room.
    pub fn prepare(self: &Arc<Self>, near: IpAddr, theirs: Option<&PairEnd>) -> Result<Prepared, RdmaError> {
        // The table may have changed since the device was opened.
        let now = sysfs::ports().into_iter().find(|port| self.is(port)).filter(PortFacts::is_active);
        let facts = now.ok_or_else(|| RdmaError::Unavailable(format!("{} is down", self.port.device)))?;
        let gid = facts.choose(near, theirs.map(|end| end.gid)).ok_or_else(|| {
            RdmaError::Unavailable(format!("{} has no address of the kind RoCE v2", facts.device))
        })?;
        let raw = Raw::new(self, gid.index)?;
        let end = raw.end(gid.bytes, facts.lid, self.mtu)?;
        Ok(Prepared { raw, end })
    }

    /// Becomes readable when something is the matter.
    pub(super) fn alarms(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open while `self` lives.
        let fd = unsafe { self.context.as_ref() }.async_fd;
        // SAFETY: the descriptor is open as long as the context.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Takes events off, and says whether the port is of no use any more. What the events say is not looked at: another
    /// pair may have taken the one that mattered, so that the port itself is.
    pub(super) fn alarmed(&self) -> Option<String> {
        let mut event = ffi::AsyncEvent { element: std::ptr::null_mut(), kind: 0 };
        // SAFETY: the context is open, its events do not block, and the event is written during the call.
        while unsafe { (self.library.async_event)(self.context.as_ptr(), &raw mut event) } == 0 {
            tracing::debug!(device = self.port.device, kind = event.kind, "event of an RDMA device");
            // SAFETY: the event was just got, and is acknowledged once.
            unsafe { (self.library.acknowledge_async)(&raw mut event) };
        }
        match sysfs::ports().iter().find(|port| self.is(port)) {
            Some(port) if port.is_active() => None,
            Some(port) => Some(format!("{} port {} is {}", port.device, port.port, port.state)),
            None => Some(format!("the device {} is gone", self.port.device)),
        }
    }

    fn is(&self, port: &PortFacts) -> bool {
        (&port.device, port.port) == (&self.port.device, self.port.port)
    }

    fn query_mtu(&self) -> Result<u16, RdmaError> {
        let mut attributes = ffi::PortAttributes::default();
        // SAFETY: the context is open, and the attributes have room for every version of theirs.
        let failed =
            unsafe { (self.library.query_port)(self.context.as_ptr(), self.port.port, &raw mut attributes) };
        if failed != 0 {
            return Err(RdmaError::Call { call: "cannot query the port", errno: Errno::from_raw(failed) });
        }
        if attributes.state != ffi::PORT_ACTIVE {
            return Err(RdmaError::Unavailable(format!("{} is down", self.port.device)));
        }
        mtu_bytes(attributes.mtu)
            .ok_or_else(|| RdmaError::Unavailable(format!("{} says no packet size", self.port.device)))
    }

    pub(super) fn context(&self) -> *mut ffi::Context {
        self.context.as_ptr()
    }

    pub(super) fn domain(&self) -> *mut c_void {
        self.domain.as_ptr()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: whatever was made in the domain holds an Arc of this device, so it is gone.
        let freed = unsafe { (self.library.free_domain)(self.domain.as_ptr()) };
        // SAFETY: the context is open and its last object was the domain.
        let closed = unsafe { (self.library.close)(self.context.as_ptr()) };
        if freed != 0 || closed != 0 {
            tracing::warn!(device = self.port.device, freed, closed, "an RDMA device was not closed well");
        }
    }
}

impl Prepared {
    /// What the other end must know.
    #[must_use]
    pub fn end(&self) -> &PairEnd {
        &self.end
    }

    /// Connects it to the other end's.
    ///
    /// # Errors
    /// [`RdmaError`]: the other end's description is impossible or not reachable from this port.
    pub fn connect(mut self, theirs: &PairEnd) -> Result<QueuePair, RdmaError> {
        theirs.check().map_err(|error| RdmaError::End(error.to_string()))?;
        self.raw.connect(&self.end, theirs)?;
        Ok(QueuePair(Box::new(Connected::new(self.raw, *theirs))))
    }
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(|_| ())
}

/// The port that is meant.
fn find(name: &str, port: u8) -> Result<PortFacts, RdmaError> {
    let unavailable = |text: String| Err(RdmaError::Unavailable(text));
    let ports = sysfs::ports();
    if ports.is_empty() {
        return unavailable("this host has no RDMA device (see `rdma link`)".to_owned());
    }
    let of_device: Vec<&PortFacts> =
        ports.iter().filter(|facts| name.is_empty() || facts.device == name).collect();
    if of_device.is_empty() {
        let mut names: Vec<&str> = ports.iter().map(|facts| facts.device.as_str()).collect();
        names.dedup();
        return unavailable(format!("there is no RDMA device {name}; there are: {}", names.join(", ")));
    }
    let Some(found) = of_device.iter().find(|facts| facts.port == port && facts.is_active()) else {
        let states: Vec<String> = of_device
            .iter()
            .map(|facts| format!("{} port {} is {}", facts.device, facts.port, facts.state))
            .collect();
        return unavailable(format!("no active port {port}: {}", states.join(", ")));
    };
    Ok((*found).clone())
}

fn open(library: &Library, name: &str) -> Result<NonNull<ffi::Context>, RdmaError> {
    let mut count = 0;
    // SAFETY: `count` is written during the call.
    let list = unsafe { (library.devices)(&raw mut count) };
    if list.is_null() {
        let errno = Errno::last();
        return Err(RdmaError::Call { call: "libibverbs finds no devices", errno });
    }
    let mut context = std::ptr::null_mut();
    let mut errno = None;
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` entries.
        let place = unsafe { list.add(index) };
        // SAFETY: the entry was written by the library.
        let device = unsafe { *place };
        // SAFETY: the device is of the list, which is not freed yet.
        let named = unsafe { (library.device_name)(device) };
        // SAFETY: a device's name ends with a zero and lives as long as the list.
        let named = unsafe { CStr::from_ptr(named) };
        if named.to_bytes() == name.as_bytes() {
            // SAFETY: the device is of the list.
            context = unsafe { (library.open)(device) };
            errno = Some(Errno::last());
        }
    }
    // SAFETY: the list came from `devices`; an opened device outlives it.
    unsafe { (library.free_devices)(list) };
    match (NonNull::new(context), errno) {
        (Some(context), _) => Ok(context),
        (None, Some(errno)) => Err(RdmaError::Call { call: "cannot open /dev/infiniband/uverbs*", errno }),
        (None, None) => Err(RdmaError::Unavailable(format!(
            "libibverbs has no driver for {name} (Debian: ibverbs-providers), or /dev/infiniband is hidden"
        ))),
    }
}
