//! Attachments to interfaces: follows the interfaces that come and go, and keeps the classifier and, where it is
//! wanted, the guard on each. With pins, an attachment outlives this process and the next one takes it over.
use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
    },
    util::KernelVersion,
};
use dwcp_abi::bpf::{Direction, GUARD_PROGRAM};

use super::pins::{Held, Pins};

/// A program that is attached to interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// Counts what arrives.
    Ingress,
    /// Counts what leaves, and says when.
    Egress,
    /// Drops what strangers send too fast.
    Guard,
}

impl Hook {
    pub(super) const ALL: [Self; 3] = [Self::Ingress, Self::Egress, Self::Guard];

    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Ingress => Direction::Ingress.program(),
            Self::Egress => Direction::Egress.program(),
            Self::Guard => GUARD_PROGRAM,
        }
    }

    fn side(self) -> TcAttachType {
        match self {
            Self::Ingress | Self::Guard => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// The guard comes first: what it drops costs nobody else anything.
    fn options(self) -> TcAttachOptions {
        TcAttachOptions::TcxOrder(match self {
            Self::Guard => LinkOrder::first(),
            Self::Ingress | Self::Egress => LinkOrder::default(),
        })
    }

    fn pin_name(self, index: u32) -> String {
        let name = match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Guard => "guard",
        };
        format!("{name}-{index}")
    }
}

/// What is attached where.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    attached: BTreeMap<u32, Attached>,
    /// Interfaces that refused, by index: complained about once.
    refused: BTreeSet<u32>,
}

#[derive(Debug)]
struct Attached {
    name: String,
    links: BTreeMap<Hook, Link>,
}

#[derive(Debug)]
enum Link {
    /// By tcx.
    Held(Held),
    /// By a filter of clsact (kernels before 6.6): cannot be pinned, stays when this process is killed.
    Filter(SchedClassifierLinkId),
}

impl Interfaces {
    /// Names, in the order of the indices.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.attached.values().map(|attached| attached.name.as_str())
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.attached.keys().copied()
    }

    /// For each interface the hooks, and whether they are pinned.
    pub(super) fn attachments(&self) -> impl Iterator<Item = (&str, Hook, bool)> {
        self.attached.values().flat_map(|attached| {
            attached.links.iter().map(|(&hook, link)| {
                (attached.name.as_str(), hook, matches!(link, Link::Held(Held::Pinned(_))))
            })
        })
    }

    /// Makes the attachments be those of `eligible` interfaces and `hooks`, pinned where there are `pins`.
    pub(super) fn follow(
        &mut self,
        ebpf: &mut Ebpf,
        eligible: BTreeMap<u32, String>,
        hooks: &[Hook],
        pins: Option<&Pins>,
    ) {
        let gone: Vec<u32> =
            self.attached.keys().copied().filter(|index| !eligible.contains_key(index)).collect();
        for index in gone {
            if let Some(attached) = self.attached.remove(&index) {
                tracing::info!(interface = attached.name, "interface is gone or down, no longer counted");
                attached.links.into_iter().for_each(|(hook, link)| detach(ebpf, hook, link));
            }
        }
        self.refused.retain(|index| eligible.contains_key(index));
        for (index, name) in eligible {
            self.follow_one(ebpf, index, name, hooks, pins);
        }
    }

    fn follow_one(&mut self, ebpf: &mut Ebpf, index: u32, name: String, hooks: &[Hook], pins: Option<&Pins>) {
        let is_new = !self.attached.contains_key(&index);
        let attached = self.attached.entry(index).or_insert(Attached { name, links: BTreeMap::new() });
        let unwanted: Vec<Hook> =
            attached.links.keys().copied().filter(|hook| !hooks.contains(hook)).collect();
        for hook in unwanted {
            if let Some(link) = attached.links.remove(&hook) {
                detach(ebpf, hook, link);
            }
        }
        for &hook in hooks {
            if attached.links.contains_key(&hook) || self.refused.contains(&index) {
                continue;
            }
            match attach(ebpf, hook, index, &attached.name, pins) {
                Ok(link) => {
                    attached.links.insert(hook, link);
                }
                Err(error) => {
                    let error = super::first_line(&*error);
                    tracing::warn!(interface = attached.name, error, "packets are not counted here");
                    self.refused.insert(index);
                }
            }
        }
        if self.refused.contains(&index) {
            let attached = self.attached.remove(&index);
            let links = attached.into_iter().flat_map(|attached| attached.links);
            links.for_each(|(hook, link)| detach(ebpf, hook, link));
        } else if is_new {
            tracing::info!(interface = attached.name, "packets are counted per class");
        }
    }

    /// Pins what is attached, or takes the pins away.
    pub(super) fn set_pins(&mut self, pins: Option<&Pins>) {
        for (&index, attached) in &mut self.attached {
            let links = std::mem::take(&mut attached.links);
            attached.links = links
                .into_iter()
                .filter_map(|(hook, link)| {
                    let link = match (link, pins) {
                        (Link::Held(held), Some(pins)) => {
                            Link::Held(held.pinned(&pins.link(&hook.pin_name(index)))?)
                        }
                        (Link::Held(held), None) => Link::Held(held.unpinned()?),
                        (Link::Filter(id), _) => Link::Filter(id),
                    };
                    Some((hook, link))
                })
                .collect();
        }
    }

    /// Pins of attachments that are not wanted any more.
    pub(super) fn sweep(&self, pins: &Pins) {
        let wanted: BTreeSet<String> = self
            .attached
            .iter()
            .flat_map(|(&index, attached)| attached.links.keys().map(move |hook| hook.pin_name(index)))
            .collect();
        for name in
            pins.links().iter().filter(|name| *name != super::socket::PIN_NAME && !wanted.contains(*name))
        {
            pins.forget_link(name);
        }
    }
}

fn attach(ebpf: &mut Ebpf, hook: Hook, index: u32, name: &str, pins: Option<&Pins>) -> Result<Link, Refused> {
    let program = program(ebpf, hook)?;
    if !has_tcx() {
        return attach_filter(program, hook, name);
    }
    let pin = pins.map(|pins| pins.link(&hook.pin_name(index)));
    let earlier = pin.as_ref().and_then(|pin| PinnedLink::from_pin(pin).ok());
    // The program behind an earlier link is replaced: not one packet goes uncounted or unpaced.
    let taken = earlier.and_then(|earlier| match take_over(program, earlier) {
        Ok(id) => Some(id),
        Err(error) => {
            tracing::debug!(interface = name, %error, "pinned attachment is of no use any more");
            None
        }
    });
    let id = match taken {
        Some(id) => id,
        None => program.attach_with_options(name, hook.side(), hook.options())?,
    };
    let held = Held::Open(FdLink::try_from(program.take_link(id)?)?);
    match &pin {
        Some(pin) => Ok(Link::Held(held.pinned(pin).ok_or("its pin was refused")?)),
        None => Ok(Link::Held(held)),
    }
}

fn attach_filter(program: &mut SchedClassifier, hook: Hook, name: &str) -> Result<Link, Refused> {
    // Before tcx (6.6) filters need a place of their own; it stays, being shared, and harms nobody.
    if let Err(error) = tc::qdisc_add_clsact(name) {
        tracing::debug!(interface = name, %error, "clsact was not added, or is there already");
    }
    // A filter stays when its process is killed: what an earlier life left would count everything twice.
    if tc::qdisc_detach_program(name, hook.side(), hook.program()).is_ok() {
        tracing::debug!(interface = name, program = hook.program(), "an earlier filter was replaced");
    }
    Ok(Link::Filter(program.attach(name, hook.side())?))
}

fn take_over(program: &mut SchedClassifier, earlier: PinnedLink) -> Result<SchedClassifierLinkId, Refused> {
    let link = SchedClassifierLink::try_from(FdLink::from(earlier))?;
    Ok(program.attach_to_link(link)?)
}

type Refused = Box<dyn std::error::Error>;

fn detach(ebpf: &mut Ebpf, hook: Hook, link: Link) {
    match link {
        Link::Held(held) => drop(held.unpinned()),
        Link::Filter(id) => {
            if let Err(error) = program(ebpf, hook).and_then(|program| program.detach(id)) {
                // The kernel detaches by itself when an interface goes; then there is nothing left to detach.
                tracing::debug!(%error, "filter was already gone");
            }
        }
    }
}

pub(super) fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, ProgramError> {
    ebpf.program_mut(hook.program()).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// Whether the kernel has links for traffic control (tcx, 6.6); aya decides by the same number.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}
