//! The program of the control group's sockets: attached by a link, which replaces that of an earlier life.
use std::fs::File;
use std::path::{Path, PathBuf};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, ProgramError, SockOps, links::FdLink},
};
use dwcp_abi::bpf::SOCKET_PROGRAM;

use super::{
    cgroup,
    pins::{Held, Pins},
};

/// Where the program is, or why it is nowhere.
#[derive(Debug)]
pub(super) enum Attachment {
    /// On this control group.
    On {
        /// Its directory.
        cgroup: PathBuf,
        link: Held,
    },
    /// For this reason.
    Off(String),
}

impl Attachment {
    /// Attaches to `wanted`, or to the node's own group. What was attached before goes once the new one works.
    pub(super) fn set(&mut self, ebpf: &mut Ebpf, wanted: Option<&Path>, pins: Option<&Pins>) {
        let directory = match cgroup::directory(wanted) {
            Ok(directory) => directory,
            Err(reason) => return self.off(reason),
        };
        if matches!(self, Self::On { cgroup, .. } if *cgroup == directory) {
            return self.set_pins(pins);
        }
        match attach(ebpf, &directory) {
            Ok(link) => {
                tracing::info!(cgroup = %directory.display(), "connections are followed and paced per class");
                *self = Self::On { cgroup: directory, link: Held::Open(link) };
                self.set_pins(pins);
            }
            Err(error) => self.off(format!("{}: {}", directory.display(), super::first_line(&*error))),
        }
    }

    pub(super) fn set_pins(&mut self, pins: Option<&Pins>) {
        let Self::On { cgroup, link } = std::mem::replace(self, Self::Off(String::new())) else { return };
        let link = match pins {
            Some(pins) => link.pinned(&pins.link(PIN_NAME)),
            None => link.unpinned(),
        };
        *self = match link {
            Some(link) => Self::On { cgroup, link },
            None => Self::Off("its link was lost; start the dataplane again".to_owned()),
        };
    }

    fn off(&mut self, reason: String) {
        tracing::warn!(reason, "connections are not paced per class; everything else works");
        *self = Self::Off(reason);
    }
}

fn attach(ebpf: &mut Ebpf, directory: &Path) -> Result<FdLink, Box<dyn std::error::Error>> {
    let cgroup = File::open(directory)?;
    let program: &mut SockOps =
        ebpf.program_mut(SOCKET_PROGRAM).ok_or(ProgramError::NotLoaded)?.try_into()?;
    // A link never displaces others' programs, and takes no flag that says so (cgroup_bpf_link_attach).
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    Ok(FdLink::try_from(program.take_link(id)?)?)
}

/// The link's name among the pins.
pub(super) const PIN_NAME: &str = "socket";
