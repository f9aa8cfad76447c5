//! `dwcp circuit-breaker`: shows the circuit breakers, and closes them.
use dwcp_api::{BreakerFigures, BreakerState, CircuitBreakers};

use crate::arguments::CircuitBreaker;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context, command: CircuitBreaker) -> Result<Code, Failure> {
    match command {
        CircuitBreaker::State => state(context).await,
        CircuitBreaker::Reset { peer } => reset(context, peer.as_deref()).await,
    }
}

async fn state(context: &Context) -> Result<Code, Failure> {
    let breakers = context.client()?.circuit_breakers().await?;
    if context.json {
        output::json(&breakers)?;
    } else {
        output::result(&render(&breakers))?;
    }
    Ok(Code::Ok)
}

async fn reset(context: &Context, peer: Option<&str>) -> Result<Code, Failure> {
    let reset = context.client()?.reset_circuit_breaker(peer).await?;
    if context.json {
        output::json(&reset)?;
        return Ok(Code::Ok);
    }
    let whose =
        peer.map_or_else(|| "all circuit breakers".to_owned(), |peer| format!("circuit breaker of {peer}"));
    context.note(&format!("{whose}: closed, was {}; transfers that waited go on", reset.previous.name()));
    Ok(Code::Ok)
}

fn render(breakers: &CircuitBreakers) -> String {
    let mut table = Table::new(&[
        ("BREAKER", Side::Left),
        ("STATE", Side::Left),
        ("FAILURES", Side::Right),
        ("NEXT", Side::Left),
    ]);
    let mut row = |name: String, breaker: &BreakerFigures| {
        let next = match (breaker.state, breaker.probes_in_seconds) {
            (BreakerState::Open, Some(seconds)) => format!("a probe in {seconds} s; transfers wait"),
            (BreakerState::Open, None) => "transfers wait".to_owned(),
            (BreakerState::HalfOpen, _) => "one probe at a time".to_owned(),
            (BreakerState::Closed, _) => "-".to_owned(),
        };
        table.row([name, breaker.state.name().to_owned(), breaker.failures.to_string(), next]);
    };
    row("(node)".to_owned(), &breakers.node);
    for peer in &breakers.peers {
        row(plain(&peer.peer), &peer.breaker);
    }
    table.render()
}
