//! The last log lines in memory, for `dwcp logs` and `dwcp events`. Fed by `tracing` beside the log itself, read by
//! HTTP; bounded, and gone with the process: the host's journal is what lasts.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dwcp_api::{NodeEvent, Timestamp};
use tokio::sync::Notify;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::log::Fields;

/// Lines and, of those, events.
#[derive(Default)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    grown: Notify,
}

#[derive(Default)]
struct Inner {
    last_number: u64,
    lines: VecDeque<NodeEvent>,
    events: VecDeque<NodeEvent>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// All that is logged.
    Lines,
    /// What is logged as information or worse.
    Events,
}

impl Journal {
    /// Those numbered above `after`, of one component where one is named; the newest `limit` of them, oldest first.
    pub(crate) fn read(
        &self,
        shelf: Shelf,
        after: u64,
        component: Option<&str>,
        limit: usize,
    ) -> Vec<NodeEvent> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = match shelf {
            Shelf::Lines => &inner.lines,
            Shelf::Events => &inner.events,
        };
        let wanted = |event: &&NodeEvent| {
            event.number > after && component.is_none_or(|component| event.component == component)
        };
        let mut found: Vec<NodeEvent> = shelf.iter().rev().filter(wanted).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// Resolves when anything was added after the call.
    pub(crate) async fn grown(&self) {
        self.grown.notified().await;
    }

    fn add(&self, level: Level, fields: Fields) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last_number += 1;
        let event = NodeEvent {
            number: inner.last_number,
            timestamp: Timestamp::from(SystemTime::now()),
            level: level.as_str().to_ascii_lowercase(),
            component: fields.component.unwrap_or_else(|| "control".into()),
            message: fields.message,
            fields: fields
                .rest
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<BTreeMap<_, _>>(),
        };
        if level <= Level::INFO {
            push(&mut inner.events, event.clone(), EVENTS_MAX);
        }
        push(&mut inner.lines, event, LINES_MAX);
        drop(inner);
        self.grown.notify_waiters();
    }
}

fn push(shelf: &mut VecDeque<NodeEvent>, event: NodeEvent, max: usize) {
    if shelf.len() == max {
        shelf.pop_front();
    }
    shelf.push_back(event);
}

/// The journal's place among the layers of `tracing`.
pub(crate) struct JournalLayer(pub(crate) Arc<Journal>);

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.add(*event.metadata().level(), fields);
    }
}

const LINES_MAX: usize = 2000;
const EVENTS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn say(journal: &Journal, level: Level, component: &str, message: &str) {
        let fields = Fields { component: Some(component.into()), message: message.into(), rest: Vec::new() };
        journal.add(level, fields);
    }

    #[test]
    fn the_newest_are_kept_in_order_and_events_outlive_debug_lines() {
        let journal = Journal::default();
        say(&journal, Level::WARN, "health", "first");
        for _ in 0..LINES_MAX {
            say(&journal, Level::DEBUG, "link", "noise");
        }
        say(&journal, Level::INFO, "jobs", "last");
        assert_eq!(journal.read(Shelf::Lines, 0, None, 5000).len(), LINES_MAX);
        let events = journal.read(Shelf::Events, 0, None, 10);
        let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(messages, ["first", "last"]);
        assert_eq!(journal.read(Shelf::Events, events[0].number, None, 10).len(), 1);
        assert_eq!(journal.read(Shelf::Events, 0, Some("health"), 10).len(), 1);
        assert_eq!(journal.read(Shelf::Events, 0, None, 1)[0].message, "last");
    }
}
