//! Log lines: one JSON object each where a program reads them, plain text on a terminal. Set up once by `main`; the
//! level follows the configuration.
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::SystemTime;

use dwcp_api::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::journal::{Journal, JournalLayer};

/// Changes the level while the process runs.
pub(crate) type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// Starts logging on standard output and into the journal.
pub(crate) fn start(level: dwcp_config::LogLevel, journal: Arc<Journal>) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter).with(JournalLayer(journal));
    if std::io::stdout().is_terminal() {
        registry.with(tracing_subscriber::fmt::layer().with_target(false)).init();
    } else {
        registry.with(tracing_subscriber::fmt::layer().event_format(JsonLines)).init();
    }
    handle
}

/// A level of no log at all.
#[cfg(test)]
pub(crate) fn unread() -> LevelHandle {
    reload::Layer::new(LevelFilter::OFF).1
}

/// Uses another level from now on.
pub(crate) fn set_level(handle: &LevelHandle, level: dwcp_config::LogLevel) {
    if let Err(error) = handle.reload(filter(level)) {
        tracing::warn!(component = "control", %error, "log level not changed");
    }
}

fn filter(level: dwcp_config::LogLevel) -> LevelFilter {
    match level {
        dwcp_config::LogLevel::Trace => LevelFilter::TRACE,
        dwcp_config::LogLevel::Debug => LevelFilter::DEBUG,
        dwcp_config::LogLevel::Info => LevelFilter::INFO,
        dwcp_config::LogLevel::Warn => LevelFilter::WARN,
        dwcp_config::LogLevel::Error => LevelFilter::ERROR,
    }
}

/// `{"timestamp":…,"level":…,"component":…,"message":…, fields…}`
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let component = fields.component.unwrap_or_else(|| "control".into());
        let head = [
            ("timestamp", Timestamp::from(SystemTime::now()).to_string()),
            ("level", event.metadata().level().as_str().to_ascii_lowercase()),
            ("component", component),
            ("message", fields.message),
        ];
        let mut separator = '{';
        for (name, text) in head {
            write!(writer, "{separator}\"{name}\":{}", serde_json::Value::from(text))?;
            separator = ',';
        }
        for (name, value) in fields.rest {
            write!(writer, ",{}:{value}", serde_json::Value::from(name))?;
        }
        writer.write_str("}\n")
    }
}

/// What one line carries.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) component: Option<String>,
    pub(crate) message: String,
    pub(crate) rest: Vec<(&'static str, serde_json::Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        match (field.name(), value) {
            ("component", serde_json::Value::String(text)) => self.component = Some(text),
            ("message", serde_json::Value::String(text)) => self.message = text,
            (name, value) => self.rest.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.put(field, text.into());
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}
