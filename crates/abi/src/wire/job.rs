//! Frames that open, follow and end jobs and objects.
use super::{ChunkRanges, ContentId, TreeOptions};
use crate::codec::{codes, records};

codes! {
    /// Why something was refused or failed, for programs; the text beside it is for people.
    pub enum Code: u16 {
        /// All is well.
        Ok = 0,
        /// No export covers the path, or the peer may not do that there.
        Forbidden = 1,
        /// The path does not exist.
        NotFound = 2,
        /// Too many jobs, objects or lanes.
        Busy = 3,
        /// The disk is full or over quota.
        NoSpace = 4,
        /// The bytes that arrived are not the bytes that were read.
        Integrity = 5,
        /// The source changed or vanished while it was read.
        Changed = 6,
        /// An input or output error.
        Io = 7,
        /// The peer broke the protocol.
        Protocol = 8,
        /// As ordered by an operator.
        Cancelled = 9,
        /// The node is going down or draining.
        Draining = 10,
        /// Nothing came for too long.
        Timeout = 11,
        /// This attempt cannot end well; the next one may.
        Again = 12,
    }
}

records! {
    /// A sender asks to start a job.
    pub struct JobOpen<'a> {
        /// Attempt of the owner.
        pub attempt: u32,
        /// How the tree is treated.
        pub options: TreeOptions,
        /// 1 = the sender wants to hear what there is under an object's name already, to send differences to it.
        pub baselines: bool,
        /// Early packs that were acknowledged. A receiver that does not know the job any more has lost them.
        pub packs: u64,
        /// Where it goes at the receiver. Empty in the answer to a `Fetch`: the receiver knows.
        pub destination: &'a [u8],
        /// What is left out, as in [`super::filter_rules`]: a receiver that deletes spares it. Empty in the answer to a
        /// `Fetch`.
        pub filters: &'a [u8],
    }

    /// The job lives here.
    pub struct JobAccept {
        /// 1 = does it there, too? Answered with 0; a sender also says again what may have got lost.
        pub question: bool,
    }

    /// A receiver asks the peer to send.
    pub struct FetchRequest<'a> {
        /// Attempt of the owner.
        pub attempt: u32,
        /// How the tree is treated.
        pub options: TreeOptions,
        /// Paths at the peer, each `u16` length and bytes.
        pub sources: &'a [u8],
        /// What is left out, as in [`super::filter_rules`].
        pub filters: &'a [u8],
    }

    /// A place for an object's bytes exists.
    pub struct ObjectOpened {
        /// The object.
        pub object: u64,
        /// 1 = the receiver holds it already: send nothing of it.
        pub held: bool,
        /// What it holds of it. The sender's digest is of these bytes, too, so it reads them; it does not send them.
        pub chunks: ChunkRanges,
        /// What there is under the object's name already.
        pub baseline: Held,
    }

    /// Content that a receiver has, all of it.
    pub struct Held {
        /// Which content.
        pub content: ContentId,
        /// Its bytes; 0 = there is none.
        pub length: u64,
    }

    /// Chunks of an object that the receiver could not make from its baseline: send them as they are, and the rest of
    /// the object as well.
    pub struct ObjectPlain {
        /// The object.
        pub object: u64,
        /// These were received in vain.
        pub chunks: ChunkRanges,
    }

    /// All of an object was sent.
    pub struct ObjectEnd {
        /// The object.
        pub object: u64,
        /// Its size.
        pub size: u64,
        /// BLAKE3 of all its bytes as they were read, holes as zeros.
        pub digest: [u8; 32],
    }

    /// The receiver is through with an object.
    pub struct ObjectDone<'a> {
        /// The object.
        pub object: u64,
        /// [`Code::Ok`]: complete and verified under its final name.
        pub code: Code,
        /// For a person; empty when all is well.
        pub text: &'a [u8],
    }

    /// All of a job was sent.
    pub struct JobEnd {
        /// Packs that were sent.
        pub packs: u64,
        /// Entries in them.
        pub entries: u64,
        /// Objects that were announced.
        pub objects: u64,
    }

    /// Everything that could be stored is durable.
    pub struct JobDone<'a> {
        /// Entries that failed at the receiver.
        pub failures: u64,
        /// The first failures, a line each; empty when there are none.
        pub text: &'a [u8],
        /// [`super::JobChanges`], or empty.
        pub changes: &'a [u8],
    }

    /// One side gives up a job.
    pub struct JobAbort<'a> {
        /// Why.
        pub code: Code,
        /// For a person: names the object and the way out.
        pub text: &'a [u8],
    }

    /// Are you there.
    pub struct Ping {
        /// Comes back as it is.
        pub token: u64,
    }

    /// The lane ends in good order.
    pub struct Close<'a> {
        /// Why.
        pub code: Code,
        /// For a person.
        pub text: &'a [u8],
    }
}

impl Held {
    /// None.
    pub const NOTHING: Self = Self { content: ContentId([0; super::CONTENT_ID_BYTES]), length: 0 };
}
