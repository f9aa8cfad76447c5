//! Copies a tree through scanner and receiver in one thread, without a network, to compare its cost with `cp -r`:
//! `cargo run --release -p dwcp-dataplane --example tree_copy -- SOURCE DESTINATION`.
use dwcp_dataplane::tree::{Base, Filters, Limits, Opening, Options, Receiver, Root, Scanner, Source};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(source), Some(destination)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: tree_copy SOURCE DESTINATION");
    };
    let source = Source { base: Base::Local, path: source.as_bytes().to_vec() };
    let mut scanner = Scanner::new(vec![source], Filters::default(), Limits::default());
    let root = Root::Local { destination: destination.as_bytes().to_vec() };
    let mut receiver = Receiver::open(root, *b"treecopy", Options::default())?;
    let mut pack = vec![0; 512 << 10];
    let (mut packs, mut finals) = (0, false);
    loop {
        let filled = if finals { scanner.fill_finals(&mut pack) } else { scanner.fill(&mut pack) };
        packs += 1;
        let unpacked = receiver.unpack(&pack[..filled.length])?;
        for failure in &unpacked.failures {
            eprintln!("{}", failure.text);
        }
        for opened in unpacked.opened {
            let found = filled.objects.iter().find(|found| found.object == opened.object);
            if let (Some(found), Opening::Write(file)) = (found, opened.opening) {
                copy(&found.file, &file.file)?;
                receiver.commit(opened.object)?;
            }
        }
        if filled.end && finals {
            break;
        }
        finals |= filled.end;
    }
    let totals = receiver.finish()?;
    println!("{packs} packs, {totals:?}");
    Ok(())
}

fn copy(from: &OwnedFd, to: &OwnedFd) -> anyhow::Result<()> {
    std::io::copy(&mut File::from(from.try_clone()?), &mut File::from(to.try_clone()?))?;
    Ok(())
}
