//! `dwcp backup` and `dwcp restore`: copies of what the node knows of transfers. Configuration and identity are files of
//! their own and are not in them.
use std::fs::File;
use std::io::Write;
use std::path::Path;

use dwcp_api::BackupVerdict;

use crate::arguments::{Backup, Restore};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

pub(super) async fn back_up(context: &Context, command: Backup) -> Result<Code, Failure> {
    match command {
        Backup::State { output } if output == Path::new("-") => {
            context.client()?.back_up(&mut std::io::stdout()).await?;
            Ok(Code::Ok)
        }
        Backup::State { output } => save(context, &output).await,
        Backup::Verify { file } => {
            let verdict = context.client()?.restore(read(&file)?, true).await?;
            show(context, &file, &verdict)
        }
    }
}

/// Under another name until it is whole and on disk: a broken copy never has the name of a good one.
async fn save(context: &Context, target: &Path) -> Result<Code, Failure> {
    let failed =
        |error: std::io::Error| Failure::general(format!("{} cannot be written: {error}", target.display()));
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    let aside = Path::new(&name);
    let mut file = File::create(aside).map_err(failed)?;
    let bytes = match context.client()?.back_up(&mut file).await {
        Ok(bytes) => bytes,
        Err(error) => {
            // What there is of it is worth nothing.
            drop(std::fs::remove_file(aside));
            return Err(error.into());
        }
    };
    file.flush().and_then(|()| file.sync_all()).map_err(failed)?;
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

pub(super) async fn restore(context: &Context, command: Restore) -> Result<Code, Failure> {
    let Restore::State { input, dry_run } = command;
    let verdict = context.client()?.restore(read(&input)?, dry_run).await?;
    show(context, &input, &verdict)?;
    if verdict.waits_for_restart {
        context.note("it is used after `systemctl restart dwcp-manager`; the former state is kept beside it as control.db.pre-restore-*");
    }
    Ok(Code::Ok)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::general(format!("{} cannot be read: {error}", file.display())))
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
