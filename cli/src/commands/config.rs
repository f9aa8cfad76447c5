//! `dwcp config`: judges files by itself, asks the daemon for what is in use.
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::arguments::Config;
use crate::configuration;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

pub(super) async fn run(context: &Context, command: Config) -> Result<Code, Failure> {
    match command {
        Config::Validate { file } => validate(context, file.as_deref()),
        Config::Show { file: Some(file) } => {
            let loaded = configuration::require(Some(&file))?;
            show(context, &dwcp_config::effective(&loaded.config))
        }
        Config::Show { file: None } => {
            let document = context.client()?.config().await?;
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
            show(context, &document.config)
        }
    }
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

fn show(context: &Context, values: &Value) -> Result<Code, Failure> {
    if context.json {
        output::json(values)?;
        return Ok(Code::Ok);
    }
    let Value::Object(members) = values else {
        return Err(Failure::general("the daemon's configuration is not a JSON object"));
    };
    let mut text = String::new();
    for (key, value) in members {
        match value {
            Value::String(value) => text.push_str(&format!("{key}: {}\n", output::plain(value))),
            other => text.push_str(&format!("{key}: {other}\n")),
        }
    }
    output::result(&text)?;
    Ok(Code::Ok)
}
