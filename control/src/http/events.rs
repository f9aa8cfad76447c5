//! Following one transfer by server-sent events: its state whenever it changes, a few times a second at most, and its
//! end. One task per follower; a follower that reads nothing holds up only itself.
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use dwcp_api::{EVENT_FINISHED, EVENT_PROGRESS, Problem, Transfer, paths};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::problem::Failure;
use super::transfers::{find, parse_id};
use crate::app::App;

/// Follows a transfer by server-sent events: `progress` with the transfer whenever it changes, `finished` at its end.
#[utoipa::path(get, path = paths::TRANSFER_EVENTS_PATTERN, tag = "transfers", params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn follow(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    find(&app, id).await?;
    let Some(place) = Place::take() else {
        return Err(Failure::refused(format!(
            "{FOLLOWERS_MAX} transfers are being followed, which is the limit"
        )));
    };
    let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        send_all(&app, id, &events).await;
        drop(place);
    });
    let stream = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(stream.into_response())
}

async fn send_all(app: &App, id: u64, events: &mpsc::Sender<Result<Event, Infallible>>) {
    loop {
        let changed = app.lock().jobs.watch(id);
        let Ok(document) = find(app, id).await else { return };
        let is_final = document.state.is_final();
        if events.send(Ok(event(&document))).await.is_err() || is_final {
            return;
        }
        // It may have ended between the two looks; then the store has it.
        let Some(mut changed) = changed else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        tokio::select! {
            // An error means that it has ended, which the next look shows.
            result = changed.changed() => drop(result),
            () = tokio::time::sleep(REFRESH) => {}
            () = events.closed() => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn event(document: &Transfer) -> Event {
    let name = if document.state.is_final() { EVENT_FINISHED } else { EVENT_PROGRESS };
    // Our own documents always serialize, on one line.
    Event::default().event(name).data(serde_json::to_string(document).unwrap_or_default())
}

/// A follower's place among those that there may be.
struct Place;

static FOLLOWERS: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let take = |count: usize| (count < FOLLOWERS_MAX).then_some(count + 1);
        FOLLOWERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        FOLLOWERS.fetch_sub(1, Ordering::Relaxed);
    }
}

const FOLLOWERS_MAX: usize = 256;
const EVENTS_WAITING_MAX: usize = 2;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Elapsed time and rate change without any event of the dataplane.
const REFRESH: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
