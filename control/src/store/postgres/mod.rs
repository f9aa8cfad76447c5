//! The store on a PostgreSQL server, for nodes whose operators want it there. One database belongs to one node: a lock of
//! the session says so. A server that goes away makes operations fail until it is back; nothing is believed to be stored
//! before the server has said that it is.
mod server;
mod tls;
mod values;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::{Client, Statement};

use super::database::{Database, Fault, Row, Value};
use super::sqlite::Sqlite;
use super::{StoreError, backup, layout};
pub(crate) use server::Server;
use values::Parameter;

/// A server, and the connection to it while there is one.
pub(super) struct Postgres {
    server: Server,
    session: Option<Session>,
    /// A transaction has begun: a connection that is lost must not be replaced before it is over.
    is_within: bool,
}

struct Session {
    client: Client,
    /// What was prepared on this connection.
    statements: HashMap<String, Statement>,
}

impl Postgres {
    /// Connects, takes the database and brings it to the newest layout.
    ///
    /// # Errors
    /// It cannot be used; the message says what to look at.
    pub(super) fn open(server: Server) -> Result<Self, StoreError> {
        let name = server.name();
        let mut database = Self { server, session: None, is_within: false };
        let unusable = |fault: Fault| StoreError::Server { server: name.clone(), reason: fault.to_string() };
        database.session().map_err(unusable)?;
        layout::bring_up(&mut database, &name)?;
        Ok(database)
    }

    /// The connection; a new one where the last was lost.
    fn session(&mut self) -> Result<&mut Session, Fault> {
        let is_lost = self.session.as_ref().is_none_or(|session| session.client.is_closed());
        if is_lost {
            self.session = None;
            if self.is_within {
                return Err(Fault::Away("the connection was lost in the middle of a change".into()));
            }
            self.session = Some(Session::open(&self.server)?);
        }
        self.session.as_mut().ok_or_else(|| Fault::Away("there is no connection".into()))
    }

    fn run(&mut self, sql: &str) -> Result<(), Fault> {
        Ok(self.session()?.client.batch_execute(sql)?)
    }
}

impl Session {
    fn open(server: &Server) -> Result<Self, Fault> {
        let mut client = server.connect()?;
        client.batch_execute(SETTINGS)?;
        let mut session = Self { client, statements: HashMap::new() };
        session.own()?;
        Ok(session)
    }

    /// The session of a control that was killed a moment ago may still stand.
    fn own(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + OWN_TIMEOUT;
        loop {
            let row = self.client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])?;
            if row.try_get(0)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Fault::Owned);
            }
            std::thread::sleep(OWN_PAUSE);
        }
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Database for Postgres {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Fault> {
        let session = self.session()?;
        let statement = session.prepared(sql)?;
        let parameters: Vec<Parameter<'_>> = values.iter().map(Parameter).collect();
        Ok(session.client.execute(&statement, &values::references(&parameters))?)
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let session = self.session()?;
        let statement = session.prepared(sql)?;
        let columns: Arc<[String]> =
            statement.columns().iter().map(|column| column.name().to_owned()).collect();
        let parameters: Vec<Parameter<'_>> = values.iter().map(Parameter).collect();
        let rows = session.client.query(&statement, &values::references(&parameters))?;
        rows.iter().map(|row| values::row(row, &columns)).collect()
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.run("BEGIN")?;
        self.is_within = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.run("COMMIT")?;
        self.is_within = false;
        Ok(())
    }

    fn rollback(&mut self) {
        // Where the connection is gone, the server has done so by itself.
        drop(self.run("ROLLBACK"));
        self.is_within = false;
    }

    fn layout(&mut self) -> Result<i64, Fault> {
        self.run("CREATE TABLE IF NOT EXISTS dwcp_layout (number BIGINT NOT NULL)")?;
        let rows = self.query("SELECT coalesce(max(number), 0) AS number FROM dwcp_layout", &[])?;
        rows.first().map_or(Ok(0), |row| row.integer("number"))
    }

    fn migrate(&mut self, step: &str, number: usize) -> Result<(), Fault> {
        let step = layout::for_postgres(step);
        let whole = format!("BEGIN; {step}; INSERT INTO dwcp_layout VALUES ({number}); COMMIT");
        self.run(&whole).inspect_err(|_| self.rollback())
    }

    fn probe(&mut self) -> Result<(), Fault> {
        self.execute("UPDATE dwcp_layout SET number = number", &[]).map(drop)
    }

    fn copy(&mut self, target: &Path) -> Result<(), Fault> {
        let mut file = Sqlite::open(target).map_err(|error| Fault::Refused(error.to_string()))?;
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        self.is_within = true;
        let copied = backup::copy_rows(self, &mut file);
        self.rollback();
        copied.and_then(|()| file.into_one_file())
    }

    fn settle(&mut self) -> Result<(), Fault> {
        self.run(SETTLE)
    }
}

/// Every failure to reach the server is of the same kind; what the server itself says is told apart by its code
/// (PostgreSQL documentation, appendix A: class 57 is "operator intervention", 08 "connection exception").
impl From<postgres::Error> for Fault {
    fn from(error: postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else { return Self::Away(explain(&error)) };
        let text = format!("{} ({})", said.message(), said.code().code());
        match &said.code().code()[..2] {
            "57" | "08" | "53" => Self::Away(text),
            _ => Self::Refused(text),
        }
    }
}

/// With its causes: the outermost error says only at which step it happened.
fn explain(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// A server that hangs must not hold the store's thread for good; what it calls committed has to be on its disk.
const SETTINGS: &str = "SET statement_timeout = '20s'; SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '60s'; SET synchronous_commit = on";
/// "dwcp" in ASCII; the number of the lock that the owner of a database holds.
const LOCK: i64 = 0x6477_6370;
const OWN_TIMEOUT: Duration = Duration::from_secs(5);
const OWN_PAUSE: Duration = Duration::from_millis(100);
const SETTLE: &str = "SELECT setval(pg_get_serial_sequence('audit', 'number'),
    coalesce((SELECT max(number) FROM audit), 0) + 1, false)";
