//! Trees go through scanner and receiver and come out equal; hostile packs and unlucky file systems do no harm.
//! Everything runs in temporary directories of its own.
mod attacks;
mod contents;
mod deleting;
mod filtering;
mod keeping;
mod manifests;
mod receiving;
mod rehearsing;
mod resuming;
mod round_trip;
mod scanning;
mod support;
