//! The table. `:8080`, `:9090` and `/etc/dwcp` stand for the node's own ports and directory; everything else is typed as
//! the runbooks have it. Sources: S0 deployment guide, S1 manager runbook, S2 master guide, S3 operational runbooks.

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    #[expect(dead_code, reason = "for whoever reads the table")]
    pub(crate) source: &'static str,
    pub(crate) line: &'static str,
    pub(crate) wanted: Wanted,
}

/// What makes it right.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// It succeeds, and says this among other things.
    Text(&'static str),
    /// It succeeds, and says nothing else.
    Only(&'static str),
    /// It leaves with this, and says that.
    Status(i32, &'static str),
}
use Wanted::{Only, Status, Text};

impl Command {
    /// The programs that are not ours.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &'static str> + use<> {
        let line = self.line;
        ["curl", "jq", "ab", "ss", "yamllint"].into_iter().filter(move |program| {
            line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *program)
        })
    }
}

const fn row(source: &'static str, line: &'static str, wanted: Wanted) -> Command {
    Command { source, line, wanted }
}

/// In the order in which they are run.
pub(crate) const COMMANDS: &[Command] = &[
    // The configuration.
    row("S0", "yamllint -d relaxed /etc/dwcp/config.yaml", Only("")),
    row("S0", "dwcp-config-validator /etc/dwcp/config.yaml", Text("valid")),
    row("S1", "dwcp-manager --config /etc/dwcp/config.yaml --validate", Text("valid")),
    row("S1", "dwcp-manager --config /etc/dwcp/wrong.yaml --validate", Status(78, "did you mean")),
    row("P", "dwcp config migrate /etc/dwcp/old.yaml", Text("max_streams: 512")),
    // Health.
    row("S0", "curl -s http://localhost:8080/health", Text(r#""amst_transport":{"status":"healthy""#)),
    row("S0", "curl -s 'http://localhost:8080/health?verbose=true'", Text(r#""recent_errors""#)),
    row("S1", "curl -s http://localhost:8080/health | jq '.components.transport'", Only("\"healthy\"")),
    row("S1", "curl -s http://localhost:8080/health | jq -r .status", Only("healthy")),
    row("S4", "curl -s -o /dev/null -w '%{http_code}' http://localhost:8080/ready", Only("200")),
    row("S0", "ab -q -n 1000 -c 10 http://localhost:8080/health", Text("Failed requests:        0")),
    // Interfaces.
    row("S0", "curl -s http://localhost:8080/api/v1/dwcp/status | jq .enabled", Only("true")),
    row("S0", "curl -s http://localhost:8080/api/v1/dwcp/status | jq -r .version", Only("1.0.0")),
    row("S0", "curl -s http://localhost:8080/api/v1/dwcp/amst/config", Text("transport.max_streams")),
    row("S0", "curl -s http://localhost:8080/api/v1/dwcp/hde/config", Text("compression.algorithm")),
    row("S0", "curl -s http://localhost:8080/api/v1/dwcp/hde/stats", Text("ratio")),
    row("S4", "curl -s http://localhost:8080/api/v1/dwcp/components", Text("amst")),
    row("P", "curl -s http://localhost:8080/openapi.json | jq -r .openapi", Text("3.1")),
    // Metrics, at both ports.
    row("S0", "curl -s http://localhost:9090/metrics | grep dwcp_amst_active_streams", Text("streams 0")),
    row("S0", "curl -s http://localhost:9090/metrics | grep dwcp_hde_compression_ratio", Text("ratio")),
    row("S0", "curl -s http://localhost:8080/metrics | grep amst_stream_errors", Text("errors")),
    row(
        "S0",
        "curl -s http://localhost:8080/metrics | grep baselines_synced",
        Text("dwcp_hde_baselines_synced"),
    ),
    row("S0", "curl -s http://localhost:8080/metrics | grep dwcp_errors", Text("dwcp_errors_total 0")),
    row("S1", "curl -s http://localhost:8080/metrics | grep dwcp_ | wc -l | grep -v '^0$'", Text("")),
    row("S1", "curl -s http://localhost:8080/metrics | grep circuit_breaker_failures", Text("dwcp_manager")),
    row("S1", "curl -s http://localhost:8080/metrics | grep -E '(latency|throughput|errors)'", Text("dwcp_")),
    row(
        "S0",
        "curl -s http://localhost:8080/metrics | grep -E 'dwcp_(errors|requests)_total'",
        Text("requests"),
    ),
    // The circuit breaker.
    row("S1", "curl -s http://localhost:8080/circuit-breaker/state", Only("\"closed\"")),
    row("S1", "curl -s -X POST http://localhost:8080/circuit-breaker/reset | jq -r .state", Only("closed")),
    // Ports and processes.
    row("S1", "ss -tuln | grep :8080", Text("LISTEN")),
    row("S1", "pgrep dwcp-manager", Text("")),
    // The command.
    row("S3", "dwcp status", Text("Mode:")),
    row("S3", "dwcp status | grep Mode", Text("hybrid")),
    row("S3", "dwcp config set mode=datacenter", Text("mode: hybrid -> datacenter")),
    row("S3", "dwcp status | grep Mode", Text("datacenter")),
    row("P", "dwcp config get mode", Only("datacenter")),
    row("P", "dwcp config unset mode", Text("datacenter -> hybrid")),
    row("S3", "dwcp config set no.such=1", Status(78, "unknown key")),
    row("P", "dwcp config preset constrained --dry-run", Text("transport.max_streams: 256 -> 16")),
    row("P", "dwcp config show --origin", Text("(default)")),
    row("S3", "dwcp stats compression --detailed", Text("")),
    row("P", "dwcp cert check", Text("there is no HTTPS")),
    row("P", "dwcp auth token --name ci --role read", Text("eyJ")),
    row("P", "dwcp auth rotate", Text("")),
    row("P", "dwcp circuit-breaker state", Text("closed")),
    // The state: copied, checked, drained, given back.
    row("S3", "dwcp backup state --output=/etc/dwcp/state.db", Text("")),
    row("P", "dwcp backup verify /etc/dwcp/state.db", Text("")),
    row("S3", "dwcp restore state --input=/etc/dwcp/state.db", Status(5, "drain")),
    row("S3", "dwcp shutdown --drain --timeout=5m", Text("")),
    row("S3", "dwcp restore state --input=/etc/dwcp/state.db --dry-run", Text("")),
    row("P", "curl -s -o /dev/null -w '%{http_code}' http://localhost:8080/ready", Only("503")),
    row("P", "dwcp undrain", Text("")),
    row("P", "dwcp wait ready", Text("")),
];
