//! A transfer's reports, through daemons that go away and come back. Knows nothing of how they are shown.
use std::time::Duration;

use dwcp_api::client::{Client, ClientError, TransferEvent, TransferEvents};
use dwcp_api::{Transfer, TransferId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::exit::{Code, Failure};

/// What there is to say.
#[derive(Debug)]
pub(super) enum Report {
    /// On its way.
    Progress(Box<Transfer>),
    /// Its end; nothing follows.
    Finished(Box<Transfer>),
    /// The daemon went away, for this reason. Said once for each time.
    Away(String),
}

/// Starts following: reports come through the channel until the end or a failure. A task of its own, so that no
/// pause of the reader starts its waits anew.
pub(super) fn spawn(
    client: Client,
    id: TransferId,
    return_timeout: Duration,
) -> mpsc::Receiver<Result<Report, Failure>> {
    let (sender, receiver) = mpsc::channel(REPORTS_MAX);
    let source = Source { client, id, return_timeout, stream: None, followed: false, away: None };
    tokio::spawn(source.run(sender));
    receiver
}

struct Source {
    client: Client,
    id: TransferId,
    /// How long a daemon may be away.
    return_timeout: Duration,
    stream: Option<TransferEvents>,
    /// Whether there was ever a stream.
    followed: bool,
    away: Option<Away>,
}

/// Since when, and how long the next pause is.
struct Away {
    since: Instant,
    pause: Duration,
}

impl Source {
    async fn run(mut self, sender: mpsc::Sender<Result<Report, Failure>>) {
        loop {
            let report = self.next().await;
            let last = matches!(report, Ok(Report::Finished(_)) | Err(_));
            if sender.send(report).await.is_err() || last {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<Report, Failure> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            match stream.next().await {
                Ok(Some(TransferEvent::Progress(transfer))) => {
                    self.away = None;
                    return Ok(Report::Progress(transfer));
                }
                Ok(Some(TransferEvent::Finished(transfer))) => return Ok(Report::Finished(transfer)),
                Ok(None) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error.into()),
            }
            self.stream = None;
            if self.away.is_none() {
                self.away = Some(Away { since: Instant::now(), pause: PAUSE_MIN });
                return Ok(Report::Away("the connection to the daemon was lost".to_owned()));
            }
        }
    }

    /// One try. The pause before it grows until a report comes through, so that a daemon which answers and hangs up
    /// is not asked without end.
    async fn connect(&mut self) -> Result<(), Failure> {
        if let Some(away) = &mut self.away {
            if away.since.elapsed() >= self.return_timeout {
                return Err(self.gone());
            }
            tokio::time::sleep(away.pause).await;
            away.pause = (away.pause * 2).min(PAUSE_MAX);
        }
        match self.client.follow_transfer(self.id).await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.followed = true;
            }
            Err(error) if self.followed && is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn gone(&self) -> Failure {
        let waited = self.return_timeout.as_secs_f64();
        Failure::new(
            Code::Unreachable,
            format!("the daemon went away and did not come back within {waited} s"),
        )
    }
}

/// Whether a daemon that restarts can look like this.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::Lost(_) => true,
        ClientError::Refused(problem) => problem.status == 503,
        ClientError::Status { status } => matches!(status, 502..=504),
        ClientError::Permission { .. }
        | ClientError::Decode(_)
        | ClientError::Schema { .. }
        | ClientError::TooLong { .. }
        | ClientError::Utf8
        | ClientError::Output(_)
        | ClientError::Address(_) => false,
    }
}

/// More reports than this and the daemon waits: a slow terminal must not fill the memory.
const REPORTS_MAX: usize = 16;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
