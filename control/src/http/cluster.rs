//! Clusters over HTTP: begin, join, leave, list, what is agreed on, how well it goes.
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{ClusterAbout, ReplicatedCommand, ReplicatedProtocol, ReplicatedPut};
use dwcp_api::{
    ClusterJoinRequest, ClusterLeaveQuery, ClusterMember, ClusterMembers, ClusterNode, ClusterPut,
    ClusterToken, ClusterValue, ConsensusChange, ConsensusMessages, ConsensusStatus, ConsensusSuspects,
    Problem, paths,
};
use dwcp_consensus::{Committee, ProtocolKind, Rotation, TransactionId};

use super::body::read_json;
use super::documents::json;
use super::problem::Failure;
use crate::app::App;
use crate::cluster::{About, Answer, ClusterError, Outcome, Running, Token, View, is_key};

/// Begins a cluster with this node as its only member.
#[utoipa::path(post, path = paths::CLUSTER, tag = "cluster", request_body = ClusterNode,
    responses((status = 201, body = ClusterMembers), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn init(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let node: ClusterNode = read_json(&headers, body, "a node").await?;
    let about = about(&app, node)?;
    let settings = app.settings();
    let consensus = &settings.config.consensus;
    let (protocol, rotation) = algorithm(&app, consensus.algorithm.as_str())?;
    app.cluster.init(&about, consensus.listen, protocol, rotation).await.map_err(failure)?;
    let running = app.cluster.member().map_err(failure)?;
    running.read("").await.map_err(|error| failure(error.into()))?;
    Ok(json(StatusCode::CREATED, &members(&running)))
}

/// The members of the cluster that this node is in.
#[utoipa::path(get, path = paths::CLUSTER_MEMBERS, tag = "cluster",
    responses((status = 200, body = ClusterMembers), (status = 404, body = Problem)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let running = app.cluster.member().map_err(failure)?;
    Ok(json(StatusCode::OK, &members(&running)))
}

/// Has this node admitted to a cluster, by a member that made a token.
#[utoipa::path(post, path = paths::CLUSTER_MEMBERS, tag = "cluster", request_body = ClusterJoinRequest,
    responses((status = 201, body = ClusterMembers), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn join(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request: ClusterJoinRequest = read_json(&headers, body, "a request to join").await?;
    let token: Token = request.token.parse().map_err(Failure::invalid)?;
    let about = about(&app, request.node)?;
    let listen = app.settings().config.consensus.listen;
    app.cluster.join(&about, listen, &request.peer, &token).await.map_err(failure)?;
    let running = app.cluster.member().map_err(failure)?;
    Ok(json(StatusCode::CREATED, &members(&running)))
}

/// Lets a member go: this node, or another one that is named.
#[utoipa::path(delete, path = paths::CLUSTER_MEMBERS, tag = "cluster", params(ClusterLeaveQuery),
    responses((status = 200, body = ClusterMembers), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn leave(
    State(app): State<Arc<App>>,
    query: Result<Query<ClusterLeaveQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let running = app.cluster.member().map_err(failure)?;
    let before = members(&running);
    let own = before.members.iter().find(|member| member.replica == running.me.0);
    let named = query.node.filter(|name| own.is_none_or(|own| own.name != *name));
    let Some(name) = named else {
        app.cluster.leave().await.map_err(failure)?;
        return Ok(json(StatusCode::OK, &before));
    };
    let Some(member) = before.members.iter().find(|member| member.name == name) else {
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let near = dwcp_config::nearest(&name, before.members.iter().map(|member| member.name.as_str()));
        let detail = format!("no member is called '{name}'");
        let failure = Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_PEER, "Unknown member", detail);
        return Err(failure.with_nearest(near));
    };
    done(
        running
            .submit(&ReplicatedCommand::Remove(member.replica), None)
            .await
            .map_err(|error| failure(error.into()))?,
    )?;
    Ok(json(StatusCode::OK, &members(&running)))
}

/// Makes a token that admits one node, at this member, within an hour.
#[utoipa::path(post, path = paths::CLUSTER_TOKEN, tag = "cluster",
    responses((status = 201, body = ClusterToken), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn token(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let running = app.cluster.member().map_err(failure)?;
    let token = running.token(&app.cluster).map_err(failure)?.to_string();
    let own = members(&running).members.into_iter().find(|member| member.replica == running.me.0);
    let peer = own.map(|own| own.address).unwrap_or_default();
    let document = ClusterToken { schema: ClusterToken::SCHEMA, token, peer, expires_in_seconds: 3600 };
    Ok(json(StatusCode::CREATED, &document))
}

/// A replicated value, as it is after everything that any member answered before.
#[utoipa::path(get, path = paths::CLUSTER_VALUE_PATTERN, tag = "cluster", params(("key" = String, Path, description = "Its key")),
    responses((status = 200, body = ClusterValue), (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn read_value(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
) -> Result<Response, Failure> {
    let running = app.cluster.member().map_err(failure)?;
    let key = checked(key)?;
    let value = running.read(&key).await.map_err(|error| failure(error.into()))?;
    let version = value.as_ref().map(|value| value.version);
    let value = value.map(|value| String::from_utf8_lossy(&value.bytes).into_owned());
    let schema = ClusterValue::SCHEMA;
    Ok(json(StatusCode::OK, &ClusterValue { schema, key, value, version, repeated: false }))
}

/// Sets a replicated value. With an `Idempotency-Key` it is set once, however often the same request comes and wherever.
#[utoipa::path(put, path = paths::CLUSTER_VALUE_PATTERN, tag = "cluster", request_body = ClusterPut,
    params(("key" = String, Path, description = "Its key"),
        ("Idempotency-Key" = Option<String>, Header, description = "Name of this request; at most 128 bytes")),
    responses((status = 200, body = ClusterValue), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn put_value(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let put: ClusterPut = read_json(&headers, body, "a value").await?;
    let running = app.cluster.member().map_err(failure)?;
    let key = checked(key)?;
    let expected = put.expected_version.unwrap_or(u64::MAX);
    let command = ReplicatedPut { key: key.as_bytes(), value: put.value.as_bytes(), expected };
    change(&running, &ReplicatedCommand::Put(command), &headers, &key, Some(&put.value)).await
}

/// Removes a replicated value.
#[utoipa::path(delete, path = paths::CLUSTER_VALUE_PATTERN, tag = "cluster",
    params(("key" = String, Path, description = "Its key"),
        ("Idempotency-Key" = Option<String>, Header, description = "Name of this request; at most 128 bytes")),
    responses((status = 200, body = ClusterValue), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn delete_value(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let running = app.cluster.member().map_err(failure)?;
    let key = checked(key)?;
    change(&running, &ReplicatedCommand::Delete(key.as_bytes()), &headers, &key, None).await
}

async fn change(
    running: &Running,
    command: &ReplicatedCommand<'_>,
    headers: &HeaderMap,
    key: &str,
    value: Option<&str>,
) -> Result<Response, Failure> {
    let name = name(headers)?;
    let answer = running.submit(command, name).await.map_err(|error| failure(error.into()))?;
    let (version, repeated) = match answer {
        Answer::Repeated => (None, true),
        other => (Some(done(other)?), false),
    };
    let (schema, key, value) = (ClusterValue::SCHEMA, key.to_owned(), value.map(str::to_owned));
    Ok(json(StatusCode::OK, &ClusterValue { schema, key, value, version, repeated }))
}

/// How the group of a cluster's members does.
#[utoipa::path(get, path = paths::CONSENSUS_PATTERN, tag = "cluster", params(("group" = String, Path, description = "`cluster`")),
    responses((status = 200, body = ConsensusStatus), (status = 404, body = Problem)))]
pub(super) async fn consensus(
    State(app): State<Arc<App>>,
    Path(group): Path<String>,
) -> Result<Response, Failure> {
    let running = member_of(&app, &group)?;
    Ok(json(StatusCode::OK, &status(&running)))
}

/// Has the members agree in another way from the next epoch on.
#[utoipa::path(put, path = paths::CONSENSUS_PATTERN, tag = "cluster", request_body = ConsensusChange,
    params(("group" = String, Path, description = "`cluster`")),
    responses((status = 200, body = ConsensusStatus), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn change_consensus(
    State(app): State<Arc<App>>,
    Path(group): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let wanted: ConsensusChange = read_json(&headers, body, "a change of consensus").await?;
    let running = member_of(&app, &group)?;
    let (protocol, rotation) = algorithm(&app, &wanted.algorithm)?;
    let answer = running.submit(&ReplicatedCommand::Protocol(wire(protocol, rotation)), None).await;
    done(answer.map_err(|error| failure(error.into()))?)?;
    Ok(json(StatusCode::OK, &status(&running)))
}

/// Members that were shown to lie.
#[utoipa::path(get, path = paths::CONSENSUS_SUSPECTS_PATTERN, tag = "cluster", params(("group" = String, Path, description = "`cluster`")),
    responses((status = 200, body = ConsensusSuspects), (status = 404, body = Problem)))]
pub(super) async fn suspects(
    State(app): State<Arc<App>>,
    Path(group): Path<String>,
) -> Result<Response, Failure> {
    let running = member_of(&app, &group)?;
    let suspects = members(&running).members.into_iter().filter(|member| member.suspect).collect();
    Ok(json(StatusCode::OK, &ConsensusSuspects { schema: ConsensusSuspects::SCHEMA, suspects }))
}

fn member_of(app: &App, group: &str) -> Result<Arc<Running>, Failure> {
    if group != GROUP {
        let detail = format!("there is one group of consensus, `{GROUP}`");
        return Err(Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_ENDPOINT, "Unknown group", detail));
    }
    app.cluster.member().map_err(failure)
}

/// How this node presents itself, from the request and the configuration.
fn about(app: &App, node: ClusterNode) -> Result<About, Failure> {
    let settings = app.settings();
    let consensus = &settings.config.consensus;
    let configured = Some(consensus.address.clone()).filter(|address| !address.is_empty());
    let listening = (!consensus.listen.ip().is_unspecified()).then(|| consensus.listen.to_string());
    let address = node.address.or(configured).or(listening);
    let address = address.ok_or_else(|| {
        Failure::impossible("under which address do the others reach this node? Give address (--address HOST:PORT) or set consensus.address")
    })?;
    let name = node.node_id.unwrap_or_else(|| app.node_id.clone());
    Ok(About { name, address, region: node.region.unwrap_or_default() })
}

fn algorithm(app: &App, name: &str) -> Result<(ProtocolKind, Option<Rotation>), Failure> {
    let protocol = ProtocolKind::ALL.into_iter().find(|kind| kind.name() == name);
    let protocol = protocol
        .ok_or_else(|| Failure::invalid("algorithm must be one of raft, pbft, bullshark, tpbft, probft"))?;
    let settings = app.settings();
    let consensus = &settings.config.consensus;
    let rotation =
        Rotation { positions: u64::from(consensus.epoch_positions), seats: consensus.committee_size };
    Ok((protocol, (protocol == ProtocolKind::TPbft).then_some(rotation)))
}

/// A protocol as it stands in a command.
fn wire(protocol: ProtocolKind, rotation: Option<Rotation>) -> ReplicatedProtocol {
    let rotation = rotation.unwrap_or(Rotation { positions: 0, seats: 0 });
    ReplicatedProtocol { protocol: protocol as u8, positions: rotation.positions, seats: rotation.seats }
}

fn checked(key: String) -> Result<String, Failure> {
    if is_key(&key) { Ok(key) } else { Err(Failure::invalid("a key is 1 to 128 letters, digits and `._-/`")) }
}

/// The request's own name, as a transaction that applies once.
fn name(headers: &HeaderMap) -> Result<Option<TransactionId>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > 128 {
        return Err(Failure::invalid("Idempotency-Key must have 1 to 128 bytes"));
    }
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    // Clear of the numbers of replicas, which are the highest.
    Ok(Some(TransactionId { client: u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 1, sequence: 1 }))
}

/// The position of what was done.
fn done(answer: Answer) -> Result<u64, Failure> {
    match answer {
        Answer::Outcome(Outcome::Done(position)) => Ok(position),
        Answer::Outcome(Outcome::Changed(version)) => {
            let detail = format!("the value has version {version}");
            Err(Failure::new(StatusCode::CONFLICT, Problem::CONFLICT, "Changed meanwhile", detail))
        }
        Answer::Outcome(Outcome::Impossible(why)) => Err(Failure::impossible(why)),
        Answer::Outcome(Outcome::Admitted(_)) | Answer::Value(_) | Answer::Repeated => Ok(0),
    }
}

fn members(running: &Running) -> ClusterMembers {
    let view = running.view();
    let plan = view.plan.as_ref();
    ClusterMembers {
        schema: ClusterMembers::SCHEMA,
        cluster: running.cluster().iter().map(|byte| format!("{byte:02x}")).collect(),
        replica: running.me.0,
        epoch: plan.map_or(0, |plan| plan.epoch),
        algorithm: plan.map_or("", |plan| plan.protocol.name()).into(),
        members: plan
            .map(|plan| plan.members.iter().map(|one| member(one, &view)).collect())
            .unwrap_or_default(),
    }
}

fn member(member: &dwcp_consensus::Member, view: &View) -> ClusterMember {
    let about = ClusterAbout::decode(&member.about).ok();
    let text = |part: fn(&ClusterAbout<'_>) -> Vec<u8>| {
        about.as_ref().map(|about| String::from_utf8_lossy(&part(about)).into_owned()).unwrap_or_default()
    };
    let trust = view.trust.iter().find(|(replica, _)| *replica == member.replica);
    ClusterMember {
        replica: member.replica.0,
        name: text(|about| about.name.to_vec()),
        address: text(|about| about.address.to_vec()),
        region: text(|about| about.region.to_vec()),
        identity: about.map(|about| dwcp_config::Identity(about.fingerprint).to_string()).unwrap_or_default(),
        votes: view.plan.as_ref().is_some_and(|plan| plan.committee.contains(&member.replica)),
        trust: trust.map(|(_, millionths)| f64::from(*millionths) / 1e6),
        suspect: view.suspects.contains(&member.replica.0),
    }
}

fn status(running: &Running) -> ConsensusStatus {
    let view = running.view();
    let [sent, received, dropped, reached] = running.messages();
    let figures = view.figures;
    let plan = view.plan.as_ref();
    let committee = plan.map(|plan| plan.committee.clone()).unwrap_or_default();
    let milliseconds = |per_mille| {
        view.latency.quantile_s(per_mille).filter(|bound| bound.is_finite()).map(|bound| bound * 1000.0)
    };
    ConsensusStatus {
        schema: ConsensusStatus::SCHEMA,
        group: GROUP.into(),
        epoch: figures.epoch,
        algorithm: plan.map_or("", |plan| plan.protocol.name()).into(),
        deciding: view.is_deciding,
        running: view.is_running,
        position: figures.position,
        stable: figures.stable,
        mark: figures.mark,
        committee: committee.iter().map(|replica| replica.0).collect(),
        faulty_max: Committee::new(committee).map_or(0, |committee| committee.faulty_max()),
        reached,
        messages: ConsensusMessages { sent, received, dropped, refused: figures.refused },
        leaders_given_up: figures.leaders_given_up,
        transfers: figures.transfers,
        conflicts: figures.conflicts,
        log_length: figures.log_length,
        batches: figures.batches,
        values: view.values,
        waiting: view.waiting,
        latency_ms_p50: milliseconds(500),
        latency_ms_p99: milliseconds(990),
        trouble: view.trouble,
    }
}

fn failure(error: ClusterError) -> Failure {
    let detail = error.to_string();
    match error {
        ClusterError::Alone => {
            Failure::new(StatusCode::NOT_FOUND, Problem::UNKNOWN_ENDPOINT, "No cluster", detail)
        }
        ClusterError::Member => {
            Failure::new(StatusCode::CONFLICT, Problem::CONFLICT, "Member already", detail)
        }
        ClusterError::Impossible(_) | ClusterError::Refused(_) => Failure::impossible(detail),
        ClusterError::Identity(_)
        | ClusterError::Store(_)
        | ClusterError::Listen { .. }
        | ClusterError::Peer { .. }
        | ClusterError::Submit(_)
        | ClusterError::Random(_)
        | ClusterError::Tls(_) => Failure::refused(detail),
    }
}

/// The one group that there is: the members of the cluster.
const GROUP: &str = "cluster";
