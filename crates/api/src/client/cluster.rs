//! Requests about clusters. Part of the client.
use hyper::{Method, StatusCode};

use super::{Client, ClientError, percent_encode, to_json};
use crate::{
    ClusterJoinRequest, ClusterMembers, ClusterNode, ClusterPut, ClusterToken, ClusterValue, ConsensusChange,
    ConsensusStatus, ConsensusSuspects, paths,
};

/// The one group that there is.
const GROUP: &str = "cluster";

impl Client {
    /// `POST /api/v1/dwcp/cluster`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn init_cluster(&self, node: &ClusterNode) -> Result<ClusterMembers, ClientError> {
        self.change(Method::POST, paths::CLUSTER, Some(to_json(node)?), StatusCode::CREATED).await
    }

    /// `GET /api/v1/dwcp/cluster/members`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn cluster_members(&self) -> Result<ClusterMembers, ClientError> {
        self.document(paths::CLUSTER_MEMBERS).await
    }

    /// `POST /api/v1/dwcp/cluster/members`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn join_cluster(&self, request: &ClusterJoinRequest) -> Result<ClusterMembers, ClientError> {
        self.change(Method::POST, paths::CLUSTER_MEMBERS, Some(to_json(request)?), StatusCode::CREATED).await
    }

    /// `DELETE /api/v1/dwcp/cluster/members`: another member.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn remove_from_cluster(&self, node: &str) -> Result<ClusterMembers, ClientError> {
        let path = format!("{}?node={}", paths::CLUSTER_MEMBERS, percent_encode(node));
        self.change(Method::DELETE, &path, None, StatusCode::OK).await
    }

    /// `DELETE /api/v1/dwcp/cluster/members`: this node. The answer says where it was.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn leave_cluster(&self) -> Result<ClusterMembers, ClientError> {
        self.change(Method::DELETE, paths::CLUSTER_MEMBERS, None, StatusCode::OK).await
    }

    /// `POST /api/v1/dwcp/cluster/token`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn cluster_token(&self) -> Result<ClusterToken, ClientError> {
        self.change(Method::POST, paths::CLUSTER_TOKEN, None, StatusCode::CREATED).await
    }

    /// `GET /api/v1/dwcp/cluster/values/{key}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn cluster_value(&self, key: &str) -> Result<ClusterValue, ClientError> {
        self.document(&paths::cluster_value(key)).await
    }

    /// `PUT /api/v1/dwcp/cluster/values/{key}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn put_cluster_value(&self, key: &str, put: &ClusterPut) -> Result<ClusterValue, ClientError> {
        self.change(Method::PUT, &paths::cluster_value(key), Some(to_json(put)?), StatusCode::OK).await
    }

    /// `DELETE /api/v1/dwcp/cluster/values/{key}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete_cluster_value(&self, key: &str) -> Result<ClusterValue, ClientError> {
        self.change(Method::DELETE, &paths::cluster_value(key), None, StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/consensus/cluster`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn consensus(&self) -> Result<ConsensusStatus, ClientError> {
        self.document(&paths::consensus(GROUP)).await
    }

    /// `PUT /api/v1/dwcp/consensus/cluster`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_consensus(&self, change: &ConsensusChange) -> Result<ConsensusStatus, ClientError> {
        self.change(Method::PUT, &paths::consensus(GROUP), Some(to_json(change)?), StatusCode::OK).await
    }

    /// `GET /api/v1/dwcp/consensus/cluster/byzantine`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn consensus_suspects(&self) -> Result<ConsensusSuspects, ClientError> {
        self.document(&format!("{}/byzantine", paths::consensus(GROUP))).await
    }
}
