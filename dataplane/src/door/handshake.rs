//! One connection from its first TLS byte to the end of its greeting, for either role. Driven by
//! [`super::turn`] whenever the socket is ready; it never blocks and keeps no time.
//!
//! ```text
//! dialler                                  acceptor
//!   ── ClientHello ───────────────────────►
//!   ◄──────── ServerHello … Finished ──────
//!   ── Certificate … Finished, Hello ─────►   both in one flight
//!   ◄──────────────── Welcome or Refuse ───
//!   ══ first frame ═══════════════════════►   only now may the acceptor send again
//! ```
//!
//! **No byte is read too many.** The socket goes to a worker, which must find the first byte behind the greeting in
//! it. So the dialler sends nothing between `Hello` and `Welcome`; the acceptor sends nothing after `Welcome` until
//! it has received a first frame; and each end reads record by record ([`super::exact`]), the greeting being alone
//! in its record. The traffic secrets leave rustls with the sequence numbers that stand then.
//!
//! Where both ends have RDMA, each says its queue pair after the `Welcome`, the dialler first; the lane's bytes then go
//! over the pair, and the socket stays silent ([`super::pairing`]).
use std::io::{self, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::hello::{
    FEATURE_RDMA, GREETING_MAX, Greeting, Hello, REFUSE_VERSION, Refuse, VersionRange, Welcome,
};
use dwcp_sys::rdma::{QueuePair, RdmaError};
use rustls::Connection;

use super::Purpose;
use super::exact::{ExactError, ExactReader, Step};
use super::pairing::{Dialler, Pairing};
use super::plan::{Payload, Plan};
use super::tls::{ALPN, Tls};
use super::verify::{Verifier, presented};
use crate::identity::Fingerprint;
use crate::rdma::Rdma;
use crate::record::{LaneSecrets, RecordError};

/// What this node says of itself in a greeting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) versions: VersionRange,
    pub(super) features: u64,
    pub(super) instance: u64,
    pub(super) chunk_length_max: u32,
    pub(super) credit_bytes: u64,
    pub(super) payload: Payload,
}

/// What the two ends have agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) version: u16,
    pub(super) features: u64,
    pub(super) instance: u64,
    pub(super) token: u64,
    pub(super) payload: LanePayload,
    pub(super) chunk_length_max: u32,
    pub(super) credit_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LanePayload {
    Encrypted,
    Clear,
}

/// A handshake that has come to its good end.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) fingerprint: Fingerprint,
    pub(super) agreement: Agreement,
    /// `None` where the lane goes on in clear.
    pub(super) secrets: Option<LaneSecrets>,
    /// `None` where the lane goes over the socket.
    pub(super) pair: Option<QueuePair>,
}

/// What the socket must do before the handshake can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Readable,
    Writable,
    Complete,
}

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Stream(#[from] ExactError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the other end is {presented}")]
    Identity { presented: Fingerprint },
    #[error("the other end does not speak `dwcp/1` over TLS")]
    Alpn,
    #[error("greeting: {0}")]
    Greeting(#[from] CodecError),
    #[error("greeting: {0}")]
    Order(&'static str),
    #[error("no version in common: this node speaks {ours}, the other end {theirs}")]
    Version { ours: VersionRange, theirs: VersionRange },
    #[error("the other end's version knows no tunnels: update it")]
    NoTunnels,
    #[error("refused by the other end: {text}")]
    Refused { code: u16, text: String },
    #[error("secrets: {0}")]
    Secrets(#[from] RecordError),
    #[error("RDMA: {0}")]
    Rdma(#[from] RdmaError),
}

/// One handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    connection: Connection,
    verifier: Arc<Verifier>,
    incoming: ExactReader,
    received: Vec<u8>,
    terms: Terms,
    pairing: Pairing,
    pair: Option<QueuePair>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The dialler, until its `Hello` is written.
    Dialling { token: u64, purpose: Purpose },
    /// The dialler, waiting for the answer.
    Asked { token: u64, purpose: Purpose },
    /// The acceptor, until the `Hello` is here.
    Accepting,
    /// The acceptor, waiting for the dialler's queue pair.
    AwaitingPair(Agreement),
    /// The dialler, waiting for the acceptor's.
    Paired(Agreement, Dialler),
    /// All is agreed; what is written must still go out.
    Agreed(Agreement),
    /// The refusal must still go out.
    Refusing { theirs: VersionRange },
}

impl Handshake {
    /// The dialler's side of a connected socket.
    pub(super) fn dial(
        tls: &Tls,
        expected: Fingerprint,
        stream: &TcpStream,
        terms: Terms,
        order: (u64, Purpose),
        rdma: &Arc<Rdma>,
    ) -> Result<Self, HandshakeError> {
        let (token, purpose) = order;
        let (connection, verifier) = tls.dial(expected, stream.peer_addr()?.ip())?;
        let pairing = Pairing::new(rdma, near(stream)?);
        Ok(Self::new(connection.into(), verifier, terms, pairing, State::Dialling { token, purpose }))
    }

    /// The acceptor's side.
    pub(super) fn accept(
        tls: &Tls,
        stream: &TcpStream,
        plan: Arc<Plan>,
        terms: Terms,
        rdma: &Arc<Rdma>,
    ) -> Result<Self, HandshakeError> {
        let (connection, verifier) = tls.accept(plan)?;
        let pairing = Pairing::new(rdma, near(stream)?);
        Ok(Self::new(connection.into(), verifier, terms, pairing, State::Accepting))
    }

    fn new(
        connection: Connection,
        verifier: Arc<Verifier>,
        terms: Terms,
        pairing: Pairing,
        state: State,
    ) -> Self {
        let (incoming, received) = (ExactReader::default(), Vec::new());
        Self { connection, verifier, incoming, received, terms, pairing, pair: None, state }
    }

    /// Goes on as far as the socket allows. `plan` is the latest: whoever has left it gets no `Welcome`.
    pub(super) fn advance(
        &mut self,
        stream: &mut TcpStream,
        plan: &Plan,
    ) -> Result<Progress, HandshakeError> {
        loop {
            self.greet()?;
            if !self.flush(stream)? {
                return Ok(Progress::Writable);
            }
            match self.state {
                State::Agreed(_) => return Ok(Progress::Complete),
                State::Refusing { theirs } => {
                    return Err(HandshakeError::Version { ours: self.terms.versions, theirs });
                }
                State::Dialling { .. }
                | State::Asked { .. }
                | State::Accepting
                | State::AwaitingPair(_)
                | State::Paired(..) => {}
            }
            match self.incoming.read(stream)? {
                Step::Waiting => return Ok(Progress::Readable),
                Step::Record(record) => feed(&mut self.connection, record).map_err(|error| {
                    // The verifier's own verdict says more than the alert that it became.
                    identify(error, &self.verifier)
                })?,
            }
            self.take_plain(plan)?;
        }
    }

    /// Sends what rustls still has to say (an alert), as far as the socket takes it at once.
    pub(super) fn say_farewell(&mut self, stream: &mut TcpStream) {
        // The connection has failed already: an alert that cannot be sent changes nothing.
        let _ = self.flush(stream);
    }

    /// Takes the secrets out; only after [`Progress::Complete`].
    pub(super) fn finish(mut self) -> Result<Greeted, HandshakeError> {
        let State::Agreed(agreement) = self.state else {
            return Err(HandshakeError::Order("it is not complete"));
        };
        let fingerprint =
            presented(&self.verifier).ok_or(HandshakeError::Order("nobody was authenticated"))?;
        if self.connection.process_new_packets()?.plaintext_bytes_to_read() != 0 {
            return Err(HandshakeError::Order("bytes follow it in its record"));
        }
        let secrets = match agreement.payload {
            LanePayload::Clear => None,
            LanePayload::Encrypted => {
                Some(LaneSecrets::from_extracted(self.connection.dangerous_extract_secrets()?)?)
            }
        };
        Ok(Greeted { fingerprint, agreement, secrets, pair: self.pair })
    }

    /// The dialler's `Hello`, as soon as TLS stands.
    fn greet(&mut self) -> Result<(), HandshakeError> {
        let State::Dialling { token, purpose } = self.state else { return Ok(()) };
        if self.connection.is_handshaking() {
            return Ok(());
        }
        self.check_alpn()?;
        let hello = Hello {
            versions: self.terms.versions,
            features: self.terms.features,
            instance: self.terms.instance,
            token,
            clear: self.terms.payload == Payload::ClearIfBoth,
            chunk_length_max: self.terms.chunk_length_max,
            credit_bytes: self.terms.credit_bytes,
        };
        self.say(&Greeting::Hello(hello))?;
        self.state = State::Asked { token, purpose };
        Ok(())
    }

    fn check_alpn(&self) -> Result<(), HandshakeError> {
        if self.connection.alpn_protocol() == Some(ALPN) { Ok(()) } else { Err(HandshakeError::Alpn) }
    }

    fn say(&mut self, greeting: &Greeting<'_>) -> Result<(), HandshakeError> {
        let mut bytes = [0; GREETING_MAX];
        let length = greeting.encode_framed(&mut bytes)?;
        Ok(self.connection.writer().write_all(&bytes[..length])?)
    }

    /// True when everything is out.
    fn flush(&mut self, stream: &mut TcpStream) -> Result<bool, HandshakeError> {
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Looks at what came out of TLS: at most one greeting, and nothing behind it.
    fn take_plain(&mut self, plan: &Plan) -> Result<(), HandshakeError> {
        let had = self.received.len();
        self.received.resize(had + GREETING_MAX, 0);
        let read = io::Read::read(&mut self.connection.reader(), &mut self.received[had..]);
        self.received.truncate(had + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(ExactError::Closed.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let received = std::mem::take(&mut self.received);
        let Some((greeting, taken)) = Greeting::decode_framed(&received)? else {
            self.received = received;
            return Ok(());
        };
        if taken != received.len() {
            return Err(HandshakeError::Order("bytes follow it in its record"));
        }
        self.hear(greeting, plan)
    }

    fn hear(&mut self, greeting: Greeting<'_>, plan: &Plan) -> Result<(), HandshakeError> {
        match (&self.state, greeting) {
            (State::Accepting, Greeting::Hello(hello)) => self.answer(hello, plan),
            (State::Asked { token, purpose }, Greeting::Welcome(welcome)) => {
                let agreement = self.accept_welcome(welcome, *token, *purpose)?;
                self.agree_as_dialler(agreement)
            }
            (State::AwaitingPair(agreement), Greeting::Pair(_) | Greeting::Unpaired(_)) => {
                let agreement = *agreement;
                let (answer, pair) = self.pairing.accept(greeting);
                if let Some(answer) = answer {
                    self.say(&answer.greeting())?;
                }
                self.pair = pair;
                self.state = State::Agreed(agreement);
                Ok(())
            }
            (State::Paired(agreement, _), Greeting::Pair(_) | Greeting::Unpaired(_)) => {
                let agreement = *agreement;
                let State::Paired(_, dialler) = std::mem::replace(&mut self.state, State::Agreed(agreement))
                else {
                    return Ok(());
                };
                self.pair = dialler.connect(greeting)?;
                Ok(())
            }
            (State::Asked { .. }, Greeting::Refuse(refuse)) => Err(HandshakeError::Refused {
                code: refuse.code,
                text: String::from_utf8_lossy(refuse.text).into_owned(),
            }),
            (
                State::Dialling { .. }
                | State::Asked { .. }
                | State::Accepting
                | State::AwaitingPair(_)
                | State::Paired(..)
                | State::Agreed(_)
                | State::Refusing { .. },
                _,
            ) => Err(HandshakeError::Order("it comes out of turn")),
        }
    }

    /// The acceptor's `Welcome` or `Refuse`.
    fn answer(&mut self, hello: Hello, plan: &Plan) -> Result<(), HandshakeError> {
        self.check_alpn()?;
        let presented = presented(&self.verifier).ok_or(HandshakeError::Order("nobody was authenticated"))?;
        let Some(peer) = plan.by_fingerprint(&presented) else {
            return Err(HandshakeError::Identity { presented });
        };
        if Purpose::of(hello.features) == Purpose::Jobs && self.pairing.offers(&peer.name) {
            self.terms.features |= FEATURE_RDMA;
        }
        let Some(version) = self.terms.versions.common(hello.versions) else {
            return self.refuse(hello.versions);
        };
        let clear = hello.clear && plan.payload == Payload::ClearIfBoth;
        let welcome = Welcome {
            version,
            features: self.terms.features & hello.features,
            instance: self.terms.instance,
            clear,
            chunk_length_max: self.terms.chunk_length_max,
            credit_bytes: self.terms.credit_bytes,
        };
        self.say(&Greeting::Welcome(welcome))?;
        let agreement = Agreement {
            version,
            features: welcome.features,
            instance: hello.instance,
            token: hello.token,
            payload: if clear { LanePayload::Clear } else { LanePayload::Encrypted },
            chunk_length_max: hello.chunk_length_max.min(self.terms.chunk_length_max),
            credit_bytes: hello.credit_bytes,
        };
        let paired = agreement.features & FEATURE_RDMA != 0;
        self.state = if paired { State::AwaitingPair(agreement) } else { State::Agreed(agreement) };
        Ok(())
    }

    /// Where both ends have RDMA, says this node's queue pair, or that there will be none.
    fn agree_as_dialler(&mut self, agreement: Agreement) -> Result<(), HandshakeError> {
        self.state = State::Agreed(agreement);
        if agreement.features & FEATURE_RDMA != 0 {
            let (said, dialler) = self.pairing.offer();
            self.say(&said.greeting())?;
            if let Some(dialler) = dialler {
                self.state = State::Paired(agreement, dialler);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, theirs: VersionRange) -> Result<(), HandshakeError> {
        let ours = self.terms.versions;
        let text =
            format!("this node speaks versions {ours}, the dialler {theirs}: update the older of the two");
        let refuse = Refuse { code: REFUSE_VERSION, versions: ours, text: text.as_bytes() };
        self.say(&Greeting::Refuse(refuse))?;
        self.connection.send_close_notify();
        self.state = State::Refusing { theirs };
        Ok(())
    }

    /// The acceptor may choose only among what was offered.
    fn accept_welcome(
        &self,
        welcome: Welcome,
        token: u64,
        purpose: Purpose,
    ) -> Result<Agreement, HandshakeError> {
        if Purpose::of(welcome.features & self.terms.features) != purpose {
            return Err(HandshakeError::NoTunnels);
        }
        let ours = self.terms.versions;
        let chosen = VersionRange { min: welcome.version, max: welcome.version };
        if ours.common(chosen).is_none() {
            return Err(HandshakeError::Version { ours, theirs: chosen });
        }
        let payload = match (welcome.clear, self.terms.payload) {
            (false, _) => LanePayload::Encrypted,
            (true, Payload::ClearIfBoth) => LanePayload::Clear,
            (true, Payload::Encrypted) => {
                return Err(HandshakeError::Order("it leaves TLS, which this node does not allow"));
            }
        };
        Ok(Agreement {
            version: welcome.version,
            features: welcome.features & self.terms.features,
            instance: welcome.instance,
            token,
            payload,
            chunk_length_max: welcome.chunk_length_max.min(self.terms.chunk_length_max),
            credit_bytes: welcome.credit_bytes,
        })
    }
}

/// This node's address of a connection.
fn near(stream: &TcpStream) -> io::Result<IpAddr> {
    Ok(stream.local_addr()?.ip())
}

/// Gives rustls one record, and lets it work on it.
fn feed(connection: &mut Connection, mut record: &[u8]) -> Result<(), HandshakeError> {
    while !record.is_empty() {
        if connection.read_tls(&mut record)? == 0 {
            return Err(ExactError::Closed.into());
        }
        connection.process_new_packets()?;
    }
    Ok(())
}

fn identify(error: HandshakeError, verifier: &Verifier) -> HandshakeError {
    let refused = rustls::CertificateError::ApplicationVerificationFailure;
    match (&error, presented(verifier)) {
        (HandshakeError::Tls(rustls::Error::InvalidCertificate(kind)), Some(presented))
            if *kind == refused =>
        {
            HandshakeError::Identity { presented }
        }
        _ => error,
    }
}
