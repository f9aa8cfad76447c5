//! `dwcp backup` and `dwcp restore`: copies of what the node knows of transfers. Configuration and identity are files of
//! their own and are not in them. A copy may be sealed with a passphrase, which the daemon never learns.
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use dwcp_api::{BackupVerdict, Timestamp};
use dwcp_sys::sealed::{self, Sealer};

use crate::arguments::{Backup, Restore};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use crate::units;

pub(super) async fn back_up(context: &Context, command: Backup) -> Result<Code, Failure> {
    match command {
        Backup::State { output, passphrase_file } => {
            let passphrase = passphrase_file.as_deref().map(passphrase).transpose()?;
            if output == Path::new("-") {
                write(context, std::io::stdout(), passphrase).await?;
                return Ok(Code::Ok);
            }
            save(context, &output, passphrase).await
        }
        Backup::Verify { file, passphrase_file } => {
            let copy = read(&file, passphrase_file.as_deref())?;
            let verdict = context.client()?.restore(copy, true).await?;
            show(context, &file, &verdict)
        }
        Backup::List { directory } => list(context, &directory),
    }
}

/// Under another name until it is whole and on disk: a broken copy never has the name of a good one.
async fn save(context: &Context, target: &Path, passphrase: Option<Vec<u8>>) -> Result<Code, Failure> {
    let failed =
        |error: std::io::Error| Failure::general(format!("{} cannot be written: {error}", target.display()));
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    let aside = Path::new(&name);
    let file = File::create(aside).map_err(failed)?;
    let (bytes, file) = match write(context, file, passphrase).await {
        Ok(written) => written,
        Err(failure) => {
            // What there is of it is worth nothing.
            drop(std::fs::remove_file(aside));
            return Err(failure);
        }
    };
    file.sync_all().map_err(failed)?;
    std::fs::rename(aside, target).map_err(failed)?;
    if context.json {
        output::json(
            &serde_json::json!({"schema": "dwcp.backup/1", "file": target.display().to_string(), "bytes": bytes}),
        )?;
    } else {
        context.note(&format!("{}: {bytes} bytes; `dwcp backup verify` checks it", target.display()));
    }
    Ok(Code::Ok)
}

/// The daemon's copy, sealed where there is a passphrase; its bytes before that.
async fn write<W: Write>(
    context: &Context,
    mut target: W,
    passphrase: Option<Vec<u8>>,
) -> Result<(u64, W), Failure> {
    let failed = |error: std::io::Error| Failure::general(format!("the copy cannot be written: {error}"));
    let client = context.client()?;
    let Some(passphrase) = passphrase else {
        let bytes = client.back_up(&mut target).await?;
        return Ok((bytes, target));
    };
    let mut sealer = Sealer::new(target, &passphrase).map_err(failed)?;
    let bytes = client.back_up(&mut sealer).await?;
    let mut target = sealer.finish().map_err(failed)?;
    target.flush().map_err(failed)?;
    Ok((bytes, target))
}

pub(super) async fn restore(context: &Context, command: Restore) -> Result<Code, Failure> {
    let Restore::State { input, passphrase_file, dry_run } = command;
    let copy = read(&input, passphrase_file.as_deref())?;
    let verdict = context.client()?.restore(copy, dry_run).await?;
    show(context, &input, &verdict)?;
    if verdict.waits_for_restart {
        context.note("it is used after `systemctl restart dwcp-manager`; the former state is kept beside it as control.db.pre-restore-*");
    }
    Ok(Code::Ok)
}

/// A copy as the daemon made it.
fn read(file: &Path, passphrase_file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let copy = std::fs::read(file)
        .map_err(|error| Failure::general(format!("{} cannot be read: {error}", file.display())))?;
    match passphrase_file {
        None if sealed::is_sealed(&copy) => Err(Failure::usage(format!("{} is sealed", file.display()))
            .with_hint("name the file with its passphrase: --passphrase-file FILE")),
        None => Ok(copy),
        Some(passphrase_file) => sealed::open(copy, &passphrase(passphrase_file)?)
            .map_err(|error| Failure::general(format!("{} cannot be opened: {error}", file.display()))),
    }
}

/// Without the line's end, which editors add. A file, because arguments and the environment are seen by others.
fn passphrase(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = std::fs::read(file)
        .map_err(|error| Failure::general(format!("{} cannot be read: {error}", file.display())))?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.len() < PASSPHRASE_BYTES_MIN {
        let text =
            format!("the passphrase in {} is shorter than {PASSPHRASE_BYTES_MIN} bytes", file.display());
        return Err(Failure::usage(text).with_hint("whoever finds the copy can try short ones at leisure"));
    }
    Ok(bytes)
}

/// What looks like a copy by its first bytes. Whether it is whole, `verify` says.
fn list(context: &Context, directory: &Path) -> Result<Code, Failure> {
    let failed = |error: std::io::Error| {
        Failure::general(format!("{} cannot be listed: {error}", directory.display()))
    };
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        // What cannot be read, or goes meanwhile, is not listed.
        copies.extend(entry.ok().and_then(|entry| copy_at(entry.path())));
    }
    copies.sort_by_key(|copy| std::cmp::Reverse(copy.at));
    if context.json {
        let copy = |copy: &Copy| {
            serde_json::json!({"file": copy.file.display().to_string(), "bytes": copy.bytes,
                "sealed": copy.is_sealed, "written_at": copy.at.to_string()})
        };
        let copies: Vec<_> = copies.iter().map(copy).collect();
        output::json(&serde_json::json!({"schema": "dwcp.backups/1", "copies": copies}))?;
        return Ok(Code::Ok);
    }
    let mut table = Table::new(&[
        ("WRITTEN", Side::Left),
        ("SIZE", Side::Right),
        ("SEALED", Side::Left),
        ("FILE", Side::Left),
    ]);
    for copy in copies {
        let sealed = if copy.is_sealed { "yes" } else { "no" };
        let file = plain(&copy.file.display().to_string());
        table.row([copy.at.to_string(), units::bytes(copy.bytes), sealed.to_owned(), file]);
    }
    output::result(&table.render())?;
    Ok(Code::Ok)
}

struct Copy {
    file: PathBuf,
    bytes: u64,
    is_sealed: bool,
    at: Timestamp,
}

fn copy_at(file: PathBuf) -> Option<Copy> {
    let facts = std::fs::metadata(&file).ok().filter(std::fs::Metadata::is_file)?;
    let mut head = Vec::new();
    File::open(&file).ok()?.take(SQLITE.len() as u64).read_to_end(&mut head).ok()?;
    let is_sealed = sealed::is_sealed(&head);
    let at = Timestamp::from(facts.modified().ok()?);
    (is_sealed || head == SQLITE).then_some(Copy { file, bytes: facts.len(), is_sealed, at })
}

fn show(context: &Context, file: &Path, verdict: &BackupVerdict) -> Result<Code, Failure> {
    if context.json {
        output::json(verdict)?;
    } else {
        let BackupVerdict { layout, transfers, unfinished, .. } = verdict;
        let file = file.display();
        output::result(&format!(
            "{file}: whole, layout {layout}, {transfers} transfers, {unfinished} of them unfinished\n"
        ))?;
    }
    Ok(Code::Ok)
}

/// How every SQLite file begins (SQLite documentation, fileformat2.html).
const SQLITE: &[u8] = b"SQLite format 3\0";
/// NIST SP 800-63B, 5.1.1: the least that a secret a person chooses may have.
const PASSPHRASE_BYTES_MIN: usize = 8;
