//! One replica: a thread for it, one for each connection. Tells its client after each turn how many transactions it has
//! applied, of how many batches, and how many of them were the client's own.
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dwcp_consensus::{
    Anchor, Config, Crypto, Digest, Ed25519, EpochParts, Epochs, Input, Maker, Member, Output, Plan,
    ProtocolKind, Replica as _, ReplicaId, Start, TransactionId,
};

use super::{Durability, PAYLOAD_BYTES, REPLICAS, wire};

enum Event {
    Message {
        from: u16,
        bytes: Vec<u8>,
    },
    /// Transactions of the client: how many.
    Submit {
        first: u64,
        count: u64,
    },
}

#[derive(Debug)]
struct Keys {
    me: u16,
}

fn signing(number: u16) -> [u8; 32] {
    [number as u8 + 1; 32]
}

fn random(number: u16) -> [u8; 32] {
    let mut bytes = [number as u8 + 1; 32];
    bytes[31] = 0;
    bytes
}

impl Maker for Keys {
    fn config(&self, plan: &Plan, binding: Digest) -> Option<Config> {
        Config::of_plan(ReplicaId(self.me), plan, binding, Digest([1; 32]))
    }

    fn crypto(&self, plan: &Plan) -> Box<dyn Crypto> {
        let keys = Ed25519::new(&signing(self.me), &random(self.me), &plan.members, |_| true);
        Box::new(keys.expect("keys of the bench"))
    }
}

pub(super) fn run(arguments: &[String]) -> Result<()> {
    let [protocol, tls, durability, number, folder] = arguments else { bail!("five arguments") };
    let protocol = ProtocolKind::ALL.into_iter().find(|kind| kind.name() == protocol).context("protocol")?;
    let durability =
        Durability::ALL.into_iter().find(|(_, name)| name == durability).context("durability")?.0;
    let (tls, me): (bool, u16) = (tls == "tls", number.parse()?);
    let (sender, events) = sync_channel(4096);
    let (replicas, clients) = (wire::listen(me, 0)?, wire::listen(me, 1)?);
    let incoming = sender.clone();
    std::thread::spawn(move || -> Result<()> {
        for stream in replicas.incoming() {
            let (stream, incoming) = (wire::server(stream?, tls)?, incoming.clone());
            std::thread::spawn(move || hear(stream, &incoming));
        }
        Ok(())
    });
    let outgoing = (0..REPLICAS).map(|number| (number != me).then(|| speak(me, number, tls)));
    let outgoing: Vec<_> = outgoing.collect();
    let (client, _) = clients.accept()?;
    client.set_nodelay(true)?;
    let answers = client.try_clone()?;
    std::thread::spawn(move || take_transactions(client, &sender));
    let member = |number| Member {
        replica: ReplicaId(number),
        keys: Ed25519::public_keys(&signing(number), &random(number)).expect("keys of the bench"),
        about: Arc::from([]),
    };
    let plan = Plan::composed(0, protocol, (0..REPLICAS).map(member).collect(), None).context("plan")?;
    let log = Log::open(durability, Path::new(folder), me)?;
    live(me, plan, &events, &outgoing, log, answers)
}

fn hear(stream: Box<dyn wire::Both>, events: &SyncSender<Event>) -> Result<()> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let from = u16::from_le_bytes(wire::read_frame(&mut stream)?.try_into().unwrap_or_default());
    loop {
        let bytes = wire::read_frame(&mut stream)?;
        events.send(Event::Message { from, bytes })?;
    }
}

fn speak(me: u16, number: u16, tls: bool) -> SyncSender<Arc<[u8]>> {
    let (sender, queue) = sync_channel::<Arc<[u8]>>(4096);
    std::thread::spawn(move || -> Result<()> {
        let stream = wire::client(wire::dial(number, 0)?, tls)?;
        let mut stream = BufWriter::with_capacity(256 << 10, stream);
        wire::write_frame(&mut stream, &me.to_le_bytes())?;
        while let Ok(first) = queue.recv() {
            wire::write_frame(&mut stream, &first)?;
            for next in queue.try_iter().take(256) {
                wire::write_frame(&mut stream, &next)?;
            }
            stream.flush()?;
        }
        Ok(())
    });
    sender
}

/// The client sends payloads whole; they are read, and their number handed on.
fn take_transactions(stream: std::net::TcpStream, events: &SyncSender<Event>) -> Result<()> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut first = 0;
    loop {
        let count = wire::read_frame(&mut stream)?.len().div_ceil(PAYLOAD_BYTES) as u64;
        events.send(Event::Submit { first, count })?;
        first += count;
    }
}

/// Where records go.
struct Log {
    file: Option<BufWriter<File>>,
    is_flushed: bool,
}

impl Log {
    fn open(durability: Durability, folder: &Path, me: u16) -> Result<Self> {
        let file = match durability {
            Durability::Memory => None,
            Durability::PageCache | Durability::Flushed => {
                Some(BufWriter::with_capacity(1 << 20, File::create(folder.join(format!("log-{me}")))?))
            }
        };
        Ok(Self { file, is_flushed: durability == Durability::Flushed })
    }

    fn write(&mut self, records: &[Vec<u8>]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        for record in records {
            wire::write_frame(file, record)?;
        }
        file.flush()?;
        if self.is_flushed && !records.is_empty() {
            file.get_ref().sync_data()?;
        }
        Ok(())
    }
}

fn live(
    me: u16,
    plan: Plan,
    events: &Receiver<Event>,
    outgoing: &[Option<SyncSender<Arc<[u8]>>>],
    mut log: Log,
    mut answers: std::net::TcpStream,
) -> Result<()> {
    let start = Instant::now();
    let now = || start.elapsed().as_nanos() as u64 + 1;
    let anchor = Anchor { plan, position: 0, origin: Digest::default() };
    let parts = EpochParts { me: ReplicaId(me), maker: Box::new(Keys { me }), anchor, start: Start::Fresh };
    let Ok(mut replica) = Epochs::start(parts, now()) else { bail!("a fresh replica starts") };
    let payload = [7; PAYLOAD_BYTES];
    let mut counts = [0_u64; 4];
    loop {
        let wait = Duration::from_nanos(replica.poll_timeout().saturating_sub(now()));
        let first = events.recv_timeout(wait.min(Duration::from_millis(50))).ok();
        for event in first.into_iter().chain(events.try_iter().take(256)) {
            match event {
                Event::Message { from, bytes } => {
                    replica.handle(now(), Input::Message { from: ReplicaId(from), bytes: &bytes });
                }
                Event::Submit { first, count } => {
                    for number in first..first + count {
                        // A session has so many numbers in flight as are told apart.
                        let client = (u64::from(me) << 40) | (number / SESSION);
                        let transaction = TransactionId { client, sequence: 1 + number % SESSION };
                        replica.handle(now(), Input::Submit { transaction, payload: &payload });
                    }
                }
            }
        }
        if replica.poll_timeout() <= now() {
            replica.handle(now(), Input::Tick);
        }
        let before = counts;
        loop {
            let outputs: Vec<Output> = std::iter::from_fn(|| replica.poll_output()).collect();
            if outputs.is_empty() {
                break;
            }
            let mut records = Vec::new();
            let mut rest = Vec::new();
            for output in outputs {
                match output {
                    Output::Persist { value, .. } => records.push(value),
                    Output::Forget { .. } => {}
                    other => rest.push(other),
                }
            }
            log.write(&records)?;
            for output in rest {
                match output {
                    Output::Send { to, bytes } => {
                        // A full queue loses the message, as in control.
                        let queue = outgoing[usize::from(to.0)].as_ref();
                        drop(queue.map(|queue| queue.try_send(bytes)));
                    }
                    Output::Apply(apply) => {
                        counts[1] += 1;
                        for (transaction, _) in apply.transactions() {
                            counts[0] += 1;
                            counts[2] += u64::from(transaction.client >> 40 == u64::from(me));
                        }
                    }
                    Output::TakeSnapshot { position } => {
                        replica.handle(
                            now(),
                            Input::Snapshot { position, state: Arc::from(counts[0].to_le_bytes()) },
                        );
                    }
                    Output::Refused { .. } => counts[3] += 1,
                    Output::Persist { .. }
                    | Output::Forget { .. }
                    | Output::Restore { .. }
                    | Output::Probable(_)
                    | Output::Reached(_)
                    | Output::Evidence(_)
                    | Output::Ended(_)
                    | Output::Began(_) => {}
                }
            }
        }
        if counts != before {
            let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            answers.write_all(&bytes)?;
        }
    }
}

/// Transactions of one client number.
const SESSION: u64 = 128;
