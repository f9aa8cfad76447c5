//! What is in the kernel, for `dwcp debug ebpf`: a line for each program, map, attachment and pin, and for each thing
//! that is not as it was asked for.
use std::fmt::Write as _;

use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{Program, ProgramError, ProgramInfo},
};
use dwcp_abi::bpf::{DepartureCounter, Guarded};

use super::{
    links::Interfaces,
    pins::{Held, Pins},
    socket::Attachment,
};

/// Lines of `kind TAB name TAB detail`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    text: String,
}

/// What the report is made of.
pub(super) struct State<'a> {
    pub(super) ebpf: &'a Ebpf,
    pub(super) interfaces: &'a Interfaces,
    pub(super) socket: &'a Attachment,
    pub(super) pins: Result<&'a Pins, &'a str>,
    pub(super) is_lasting: bool,
    /// The policy asks for something that should last.
    pub(super) wants_lasting: bool,
    pub(super) guard: Result<&'a bool, &'a str>,
    pub(super) guarded: [u64; Guarded::COUNT as usize],
    pub(super) fq: usize,
    pub(super) uses_departure: bool,
    pub(super) departures: [u64; DepartureCounter::COUNT as usize],
    pub(super) complaints: &'a [String],
}

impl Report {
    /// The lines.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Nothing is loaded, for a reason.
    #[must_use]
    pub fn off(reason: &str) -> Self {
        let mut report = Self::default();
        report.line("programs", "off", reason);
        report
    }

    /// Adds a line; what would break it is taken out.
    pub fn line(&mut self, kind: &str, name: &str, detail: &str) {
        let detail = detail.replace(['\n', '\t'], " ");
        // Writing to a string cannot fail.
        let _written = writeln!(self.text, "{kind}\t{name}\t{detail}");
    }

    pub(super) fn of(state: &State<'_>) -> Self {
        let mut report = Self::default();
        report.programs(state.ebpf);
        report.attachments(state);
        report.departures(state);
        report.guard(state);
        report.pins(state);
        for complaint in state.complaints {
            report.line("trouble", "selector", complaint);
        }
        report
    }

    fn programs(&mut self, ebpf: &Ebpf) {
        let mut maps = std::collections::BTreeSet::new();
        let mut programs: Vec<_> = ebpf.programs().collect();
        programs.sort_by_key(|(name, _)| *name);
        for (name, program) in programs {
            match info(program) {
                Ok(info) => {
                    let verified = info.verified_instruction_count().unwrap_or(0);
                    let bytes = info.size_jitted();
                    self.line(
                        "program",
                        name,
                        &format!(
                            "id {}, {verified} instructions verified, {bytes} bytes of machine code",
                            info.id()
                        ),
                    );
                    maps.extend(info.map_ids().ok().flatten().unwrap_or_default());
                }
                Err(error) => self.line("trouble", name, &super::first_line(&error)),
            }
        }
        for info in maps.into_iter().filter_map(|id| MapInfo::from_id(id).ok()) {
            let (id, key, value, most) = (info.id(), info.key_size(), info.value_size(), info.max_entries());
            let name = info.name_as_str().unwrap_or("?");
            self.line("map", name, &format!("id {id}, {most} entries of {key} + {value} bytes at most"));
        }
    }

    fn attachments(&mut self, state: &State<'_>) {
        for (interface, hook, is_pinned) in state.interfaces.attachments() {
            let kept = if is_pinned { ", pinned" } else { "" };
            self.line("attached", hook.program(), &format!("interface {interface}{kept}"));
        }
        match state.socket {
            Attachment::On { cgroup, link } => {
                let kept = if matches!(link, Held::Pinned(_)) { ", pinned" } else { "" };
                let detail = format!("cgroup {}{kept}", cgroup.display());
                self.line("attached", dwcp_abi::bpf::SOCKET_PROGRAM, &detail);
            }
            Attachment::Off(reason) => self.line("trouble", dwcp_abi::bpf::SOCKET_PROGRAM, reason),
        }
    }

    fn departures(&mut self, state: &State<'_>) {
        let [delayed, dropped] = state.departures;
        let detail = format!(
            "{} interfaces with fq; {delayed} packets delayed, {dropped} dropped beyond the horizon",
            state.fq
        );
        match (state.uses_departure, state.fq) {
            (false, _) => self.line("departure", "off", "no class has a rate for each peer"),
            (true, 0) => self.line(
                "trouble",
                "departure",
                "no interface has fq, so that rates for each peer hold nothing back: `dwcp tune --plan`",
            ),
            (true, _) => self.line("departure", "on", &detail),
        }
    }

    fn guard(&mut self, state: &State<'_>) {
        match state.guard {
            Ok(false) => self.line("guard", "off", "guard.mode is off"),
            Ok(true) => {
                let counts = Guarded::ALL.iter().zip(state.guarded);
                let counts: Vec<String> =
                    counts.map(|(what, count)| format!("{count} {}", what.name())).collect();
                self.line("guard", "on", &counts.join("; "));
            }
            Err(reason) => self.line("trouble", "guard", reason),
        }
    }

    fn pins(&mut self, state: &State<'_>) {
        match (state.pins, state.is_lasting) {
            (Ok(pins), true) => self.line("pins", "yes", &pins.folder().display().to_string()),
            (Ok(_), false) => self.line("pins", "none", "nothing is asked for that would have to last"),
            (Err(reason), _) if state.wants_lasting => self.line("trouble", "pins", reason),
            (Err(reason), _) => self.line("pins", "none", reason),
        }
    }
}

fn info(program: &Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.info(),
        Program::SockOps(program) => program.info(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
