//! `dwcp auth` and `dwcp audit`: who may use the node from other hosts, and who changed what.
use dwcp_api::{AuditEntry, KeyFigures, KeyRequest, Role, TokenRequest};

use crate::arguments::{AuthKey, RoleName, TokenArguments};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn keys(context: &Context, command: AuthKey) -> Result<Code, Failure> {
    let client = context.client()?;
    match command {
        AuthKey::Create { name, role, ttl } => {
            let request = KeyRequest { name, role: role.into(), ttl_seconds: ttl.map(|ttl| ttl.as_secs()) };
            let created = client.create_api_key(&request).await?;
            if context.json {
                output::json(&created)?;
            } else {
                output::result(&format!("{}\n", plain(&created.key)))?;
                context.note(
                    "this is the only time that the key is shown; use it as `Authorization: Bearer KEY`",
                );
                context.note(&format!("to undo: dwcp auth key revoke {}", plain(&created.figures.id)));
            }
        }
        AuthKey::List => {
            let list = client.api_keys().await?;
            if context.json {
                output::json(&list)?;
            } else if list.keys.is_empty() {
                context.note("no keys: `dwcp auth key create` makes one");
            } else {
                output::result(&table(&list.keys))?;
            }
        }
        AuthKey::Revoke { id } => {
            let list = client.revoke_api_key(&id).await?;
            if context.json {
                output::json(&list)?;
            }
            context.note(&format!("{}: counts no longer", plain(&id)));
        }
    }
    Ok(Code::Ok)
}

/// Prints the token alone on stdout, so that a script can take it.
pub(super) async fn token(context: &Context, arguments: TokenArguments) -> Result<Code, Failure> {
    let TokenArguments { name, role, ttl } = arguments;
    let request = TokenRequest { name, role: role.into(), ttl_seconds: ttl.map(|ttl| ttl.as_secs()) };
    let issued = context.client()?.issue_token(&request).await?;
    if context.json {
        output::json(&issued)?;
    } else {
        output::result(&format!("{}\n", plain(&issued.token)))?;
        context.note(&format!("counts until {}; use it as `Authorization: Bearer TOKEN`", issued.expires_at));
        context.note("to undo: dwcp auth rotate, which ends all tokens");
    }
    Ok(Code::Ok)
}

pub(super) async fn rotate(context: &Context) -> Result<Code, Failure> {
    let list = context.client()?.rotate_token_keys().await?;
    if context.json {
        output::json(&list)?;
    }
    context.note("no token counts that was made before");
    Ok(Code::Ok)
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Read => Self::Read,
            RoleName::Operate => Self::Operate,
            RoleName::Admin => Self::Admin,
        }
    }
}

fn table(keys: &[KeyFigures]) -> String {
    let columns = [
        ("ID", Side::Left),
        ("ROLE", Side::Left),
        ("CREATED", Side::Left),
        ("EXPIRES", Side::Left),
        ("NAME", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for key in keys {
        let expires = key.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        table.row([
            plain(&key.id),
            key.role.name().to_owned(),
            key.created_at.to_string(),
            expires,
            plain(&key.name),
        ]);
    }
    table.render()
}

pub(super) async fn audit(context: &Context, limit: Option<u16>) -> Result<Code, Failure> {
    let list = context.client()?.audit(limit).await?;
    if context.json {
        output::json(&list)?;
    } else if list.entries.is_empty() {
        context.note("nobody has changed anything");
    } else {
        output::result(&audit_table(&list.entries))?;
    }
    Ok(Code::Ok)
}

fn audit_table(entries: &[AuditEntry]) -> String {
    let columns = [
        ("WHEN", Side::Left),
        ("WHO", Side::Left),
        ("ROLE", Side::Left),
        ("METHOD", Side::Left),
        ("STATUS", Side::Right),
        ("PATH", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for entry in entries {
        let (who, role, path) = (plain(&entry.who), plain(&entry.role), plain(&entry.path));
        table.row([
            entry.timestamp.to_string(),
            who,
            role,
            plain(&entry.method),
            entry.status.to_string(),
            path,
        ]);
    }
    table.render()
}
