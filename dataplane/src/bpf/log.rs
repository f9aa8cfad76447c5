//! Carries the lines of the kernel programs (aya-log) into tracing. Used by the classifier only.
use log::{Level, Log, Metadata, Record};

/// Writes each record as an event of target `dwcp::ebpf`, level by level.
#[derive(Debug)]
pub(super) struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        // The subscriber filters.
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "dwcp::ebpf", "{text}"),
            Level::Warn => tracing::warn!(target: "dwcp::ebpf", "{text}"),
            Level::Info => tracing::info!(target: "dwcp::ebpf", "{text}"),
            Level::Debug => tracing::debug!(target: "dwcp::ebpf", "{text}"),
            Level::Trace => tracing::trace!(target: "dwcp::ebpf", "{text}"),
        }
    }

    fn flush(&self) {}
}
