//! The Node service: what kubelet calls for every volume.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tonic::{Code, Request, Response, Status};
use tracing::Instrument as _;

use super::call::Calls;
use super::request;
use crate::metrics::{self, Metrics, Operation};
use crate::proto::csi::node_server::Node;
use crate::proto::csi::node_service_capability::{Rpc, Type, rpc};
use crate::proto::csi::volume_usage::Unit;
use crate::proto::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, VolumeCondition, VolumeUsage,
};
use crate::publish::Publisher;
use crate::stats::{Stats, StatsError, Usage, stats};

/// The Node service.
pub struct NodeService {
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    node_id: String,
    kubelet_dir: PathBuf,
    pub(super) calls: Calls,
}

impl NodeService {
    /// Serves what `publisher` publishes on the node `node_id`, below `kubelet_dir`.
    pub fn new(
        publisher: Arc<Publisher>,
        metrics: Arc<Metrics>,
        node_id: String,
        kubelet_dir: PathBuf,
        calls: Calls,
    ) -> Self {
        Self { publisher, metrics, node_id, kubelet_dir, calls }
    }

    /// Does a call's work, counted and logged.
    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        deadline: super::call::Deadline,
        span: tracing::Span,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let running = self.metrics.begin(operation);
        let work = async move {
            let started = Instant::now();
            let done = work.await;
            let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            match &done {
                Ok(_) => {
                    running.finish(metrics::OK);
                    tracing::info!(milliseconds, "done");
                }
                Err(status) => {
                    running.finish(word(status.code()));
                    tracing::warn!(milliseconds, code = ?status.code(), error = status.message(), "not done");
                }
            }
            done
        };
        self.calls.run(deadline, work).instrument(span).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let deadline = self.calls.deadline(request.metadata());
        let request = request::publish(request.into_inner(), &self.kubelet_dir)?;
        let pod = &request.context.pod;
        let span = tracing::info_span!(
            "publish", volume_id = %request.volume, pod_uid = pod.uid, pod = pod.name, namespace = pod.namespace,
            database = %request.context.wanted.database()
        );
        let publisher = self.publisher.clone();
        let work = async move {
            match publisher.publish(&request, deadline.wait()).await {
                Ok(()) => Ok(NodePublishVolumeResponse {}),
                Err(error) => Err(Status::new(error.code(), error.to_string())),
            }
        };
        self.call(Operation::Publish, deadline, span, work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let deadline = self.calls.deadline(request.metadata());
        let request = request.into_inner();
        let volume = request::volume_id(&request.volume_id)?;
        let target = request::target_path(&request.target_path, "target_path", &self.kubelet_dir)?;
        let span = tracing::info_span!("unpublish", volume_id = %volume);
        let publisher = self.publisher.clone();
        let work = async move {
            match publisher.unpublish(&volume, &target, deadline.wait()).await {
                Ok(()) => Ok(NodeUnpublishVolumeResponse {}),
                Err(error) => Err(Status::new(error.code(), error.to_string())),
            }
        };
        self.call(Operation::Unpublish, deadline, span, work).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = request::volume_id(&request.volume_id)?;
        let target = request::target_path(&request.volume_path, "volume_path", &self.kubelet_dir)?;
        let running = self.metrics.begin(Operation::Stats);
        match stats(self.publisher.node.clone(), volume, target).await {
            Ok(stats) => {
                running.finish(metrics::OK);
                Ok(Response::new(say(stats)))
            }
            Err(error) => {
                let code = if matches!(error, StatsError::NotFound { .. }) {
                    Code::NotFound
                } else {
                    Code::Internal
                };
                running.finish(word(code));
                Err(Status::new(code, error.to_string()))
            }
        }
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability =
            |kind: rpc::Type| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) };
        let capabilities =
            vec![capability(rpc::Type::GetVolumeStats), capability(rpc::Type::VolumeCondition)];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse { node_id: self.node_id.clone(), ..Default::default() }))
    }
}

fn say(stats: Stats) -> NodeGetVolumeStatsResponse {
    let usage = |usage: Option<Usage>, unit: Unit| {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        usage.map(|usage| VolumeUsage {
            total: signed(usage.total),
            used: signed(usage.used),
            available: signed(usage.available),
            unit: unit.into(),
        })
    };
    let usage =
        usage(stats.bytes, Unit::Bytes).into_iter().chain(usage(stats.inodes, Unit::Inodes)).collect();
    let (abnormal, message) = (stats.abnormal.is_some(), stats.abnormal.unwrap_or("works"));
    NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(VolumeCondition { abnormal, message: message.to_owned() }),
    }
}

/// A code as a label's value.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => metrics::OK,
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
