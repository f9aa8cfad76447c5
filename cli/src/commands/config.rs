//! `dwcp config`: judges files and explains keys by itself, asks the daemon for what is in use and to change it.
use std::collections::BTreeMap;
use std::path::Path;

use dwcp_api::client::ClientError;
use dwcp_api::{ConfigChange, KeyChange, Problem};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::Config;
use crate::configuration;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

pub(super) async fn run(context: &Context, command: Config) -> Result<Code, Failure> {
    match command {
        Config::Validate { file } => validate(context, file.as_deref()),
        Config::Show { file: Some(file), origin } => {
            let loaded = configuration::require(Some(&file))?;
            let origins =
                loaded.origins.iter().map(|(key, origin)| (key.clone(), origin.to_string())).collect();
            show(context, &dwcp_config::effective(&loaded.config), origin.then_some(&origins))
        }
        Config::Show { file: None, origin } => show_daemon(context, origin).await,
        Config::Get { key } => get(context, &key).await,
        Config::Set { assignments, dry_run } => {
            change(context, assignments.into_iter().map(set).collect(), dry_run).await
        }
        Config::Unset { keys, dry_run } => {
            change(context, keys.into_iter().map(|key| (key, Value::Null)).collect(), dry_run).await
        }
        Config::Diff => {
            let change = context.client()?.reload_config(true).await.map_err(as_configuration)?;
            report(context, &change)
        }
        Config::Reload => {
            let change = context.client()?.reload_config(false).await.map_err(as_configuration)?;
            report(context, &change)
        }
        Config::Migrate { file, output } => migrate(context, &file, output.as_deref()),
        Config::Preset { name: None, .. } => presets(context),
        Config::Preset { name: Some(name), dry_run } => preset(context, &name, dry_run).await,
        Config::Explain { key } => explain(&key),
    }
}

async fn show_daemon(context: &Context, origin: bool) -> Result<Code, Failure> {
    let client = context.client()?;
    let document = if origin { client.config_with_origins().await? } else { client.config().await? };
    if context.json {
        output::json(&document)?;
        return Ok(Code::Ok);
    }
    for warning in &document.warnings {
        context.note(&format!("note: {}", output::plain(warning)));
    }
    for key in &document.restart_required {
        context.note(&format!("note: {} changes with the next restart", output::plain(key)));
    }
    show(context, &document.config, document.origins.as_ref())
}

/// The value in use, alone on its line.
async fn get(context: &Context, key: &str) -> Result<Code, Failure> {
    let name = dwcp_config::canonical(key).unwrap_or_else(|| key.to_owned());
    let document = context.client()?.config().await?;
    let Some(value) = document.config.get(&name) else { return Err(unknown_key(key)) };
    match value {
        _ if context.json => output::json(value)?,
        Value::String(text) => output::result(&format!("{}\n", output::plain(text)))?,
        other => output::result(&format!("{other}\n"))?,
    }
    Ok(Code::Ok)
}

fn set((key, value): (String, String)) -> (String, Value) {
    (key, Value::String(value))
}

async fn change(context: &Context, changes: Map<String, Value>, dry_run: bool) -> Result<Code, Failure> {
    let undo = changes.keys().cloned().collect::<Vec<_>>().join(" ");
    let is_set = changes.values().any(|value| !value.is_null());
    let change = context.client()?.set_config(&changes, dry_run).await.map_err(as_configuration)?;
    let code = report(context, &change)?;
    if is_set && !dry_run && !change.changes.is_empty() {
        context.note(&format!("to undo: dwcp config unset {}", output::plain(&undo)));
    }
    Ok(code)
}

/// What changed, and what it takes until it counts.
fn report(context: &Context, change: &ConfigChange) -> Result<Code, Failure> {
    if context.json {
        output::json(change)?;
        return Ok(Code::Ok);
    }
    for warning in &change.warnings {
        context.note(&format!("note: {}", output::plain(warning)));
    }
    if change.changes.is_empty() {
        context.note("nothing changes");
    }
    let mut text = String::new();
    for KeyChange { key, from, to } in &change.changes {
        let when = match (change.applied.contains(key), change.dry_run) {
            (true, _) => "",
            (false, true) => "   (needs a restart)",
            (false, false) => "   (restart required: systemctl restart dwcp)",
        };
        text.push_str(&output::plain(&format!("{key}: {from} -> {to}{when}")));
        text.push('\n');
    }
    output::result(&text)?;
    Ok(Code::Ok)
}

/// Wrong keys and values have the exit code of wrong configurations.
fn as_configuration(error: ClientError) -> Failure {
    let ClientError::Refused(problem) = &error else { return error.into() };
    if problem.kind != Problem::CONFIGURATION {
        return error.into();
    }
    let mistakes: Vec<String> = problem.errors.iter().map(|text| output::plain(text)).collect();
    Failure::new(Code::Configuration, mistakes.join("\n")).with_hint("nothing was changed")
}

async fn preset(context: &Context, name: &str, dry_run: bool) -> Result<Code, Failure> {
    let Some(preset) = dwcp_config::PRESETS.iter().find(|preset| preset.name == name) else {
        return Err(Failure::usage(format!("there is no preset '{name}'")));
    };
    let pair = |(key, value): &(&str, &str)| set(((*key).to_owned(), (*value).to_owned()));
    change(context, preset.keys.iter().map(pair).collect(), dry_run).await
}

fn presets(context: &Context) -> Result<Code, Failure> {
    if context.json {
        let one = |preset: &dwcp_config::Preset| {
            let keys: Map<String, Value> =
                preset.keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
            serde_json::json!({"name": preset.name, "purpose": preset.purpose, "keys": keys})
        };
        let presets: Vec<Value> = dwcp_config::PRESETS.iter().map(one).collect();
        output::json(&serde_json::json!({"schema": "dwcp.config-presets/1", "presets": presets}))?;
        return Ok(Code::Ok);
    }
    let mut text = String::new();
    for preset in dwcp_config::PRESETS {
        text.push_str(&format!("{}: {}\n", preset.name, preset.purpose));
        preset.keys.iter().for_each(|(key, value)| text.push_str(&format!("  {key}: {value}\n")));
    }
    output::result(&text)?;
    Ok(Code::Ok)
}

/// The new text goes to standard output alone; what was left out is a note, and no failure.
fn migrate(context: &Context, file: &Path, output: Option<&Path>) -> Result<Code, Failure> {
    let migrated = dwcp_config::migrate(file).map_err(|findings| {
        Failure::new(Code::Configuration, format!("it cannot be rewritten\n{findings}"))
    })?;
    for finding in &migrated.renamed {
        context.note(&format!("note: {}", output::plain(&finding.to_string())));
    }
    for finding in &migrated.dropped {
        context.note(&format!("left out: {}", output::plain(&finding.to_string())));
    }
    let Some(place) = output else {
        output::result(&migrated.text)?;
        return Ok(Code::Ok);
    };
    write_kept(place, &migrated.text)
        .map_err(|error| Failure::general(format!("{}: {error}", place.display())))?;
    context.note(&format!("{} written; `dwcp config validate` judges it", place.display()));
    Ok(Code::Ok)
}

/// A file that is there already is moved aside first.
fn write_kept(place: &Path, text: &str) -> std::io::Result<()> {
    if place.exists() {
        let mut kept = place.as_os_str().to_owned();
        kept.push(".old");
        std::fs::copy(place, kept)?;
    }
    std::fs::write(place, text)
}

fn explain(key: &str) -> Result<Code, Failure> {
    let text = dwcp_config::explain(key).ok_or_else(|| unknown_key(key))?;
    output::result(&text)?;
    Ok(Code::Ok)
}

fn unknown_key(key: &str) -> Failure {
    let near = dwcp_config::nearest(key, dwcp_config::KEYS.iter().map(|key| key.name));
    let hint = near.map_or_else(
        || "`dwcp config show` lists all of them; peers and exports are lists of the file".to_owned(),
        |near| format!("did you mean '{near}'?"),
    );
    Failure::new(Code::Configuration, format!("there is no key '{}'", output::plain(key))).with_hint(hint)
}

/// Answer of `config validate --json`.
#[derive(Serialize)]
struct Verdict {
    schema: &'static str,
    valid: bool,
    files: Vec<String>,
    findings: Vec<FindingText>,
}

#[derive(Serialize)]
struct FindingText {
    file: String,
    line: Option<u64>,
    column: Option<u64>,
    key: String,
    message: String,
}

pub(crate) fn validate(context: &Context, file: Option<&Path>) -> Result<Code, Failure> {
    let result = configuration::load(file);
    let code = if result.is_ok() { Code::Ok } else { Code::Configuration };
    if context.json {
        output::json(&verdict(&result))?;
        return Ok(code);
    }
    match result {
        Ok(loaded) if loaded.files.is_empty() => {
            output::result("no configuration file: defaults are used\n")?
        }
        Ok(loaded) => {
            let mut text = String::new();
            for file in &loaded.files {
                text.push_str(&format!("{}: valid\n", file.display()));
            }
            output::result(&text)?;
        }
        Err(findings) => output::result(&format!("{findings}\n"))?,
    }
    Ok(code)
}

fn verdict(result: &Result<dwcp_config::Loaded, dwcp_config::Findings>) -> Verdict {
    let (files, findings) = match result {
        Ok(loaded) => (loaded.files.iter().map(|file| file.display().to_string()).collect(), Vec::new()),
        Err(findings) => (Vec::new(), findings.0.iter().map(finding_text).collect()),
    };
    Verdict { schema: "dwcp.config-validation/1", valid: result.is_ok(), files, findings }
}

fn finding_text(finding: &dwcp_config::Finding) -> FindingText {
    FindingText {
        file: finding.file.clone(),
        line: finding.at.map(|at| at.line as u64),
        column: finding.at.map(|at| at.column as u64),
        key: finding.key.clone(),
        message: finding.message.clone(),
    }
}

fn show(
    context: &Context,
    values: &Value,
    origins: Option<&BTreeMap<String, String>>,
) -> Result<Code, Failure> {
    if context.json {
        output::json(values)?;
        return Ok(Code::Ok);
    }
    let Value::Object(members) = values else {
        return Err(Failure::general("the daemon's configuration is not a JSON object"));
    };
    let mut text = String::new();
    for (key, value) in members {
        let value = match value {
            Value::String(value) => output::plain(value),
            other => other.to_string(),
        };
        match origins.map(|origins| origins.get(key).map_or("default", String::as_str)) {
            Some(origin) => text.push_str(&format!("{key}: {value}   ({})\n", output::plain(origin))),
            None => text.push_str(&format!("{key}: {value}\n")),
        }
    }
    output::result(&text)?;
    Ok(Code::Ok)
}
