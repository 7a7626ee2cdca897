//! The control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use super::Ending;
use super::images::{AttachOutcome, Images, OpenImage, Refusal};
use crate::protocol::{Request, Response};
use crate::spec::How;

/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests in the background, each connection in a thread of its own: there are as many as volumes being
/// opened or closed at this moment.
pub(super) fn accept(
    listener: UnixListener,
    images: Arc<Images>,
    on_demand: bool,
    end: mpsc::Sender<Ending>,
) -> anyhow::Result<()> {
    let loop_ = move || {
        for stream in listener.incoming() {
            let (images, end) = (Arc::clone(&images), end.clone());
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of descriptors, say: asking again at once would only heat the machine.
                    tracing::warn!(%error, "accept a control connection");
                    thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            let answering = thread::Builder::new().name("control".to_owned()).spawn(move || {
                if let Err(error) = converse(&stream, &images, on_demand, &end) {
                    tracing::debug!(%error, "control connection");
                }
            });
            if let Err(error) = answering {
                tracing::error!(%error, "start a thread for a control connection");
            }
        }
    };
    thread::Builder::new().name("accept".to_owned()).spawn(loop_).context("start the control thread")?;
    Ok(())
}

fn converse(
    mut stream: &UnixStream,
    images: &Images,
    on_demand: bool,
    end: &mpsc::Sender<Ending>,
) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let response = match serde_json::from_str(&line?) {
            Ok(request) => answer(&request, images, on_demand),
            Err(e) => Response::Failed { message: format!("not a request: {e}"), errno: None },
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        // An answer that nobody waits for any more changes nothing: what was begun stands.
        let sent = stream.write_all(&text);
        match response {
            Response::Stopping { .. } => drop(end.send(Ending::Asked)),
            Response::Detached => drop(end.send(Ending::Detached)),
            _ => {}
        }
        sent?;
    }
    Ok(())
}

fn answer(request: &Request, images: &Images, on_demand: bool) -> Response {
    if let Request::Attach { cluster, .. }
    | Request::Detach { cluster, .. }
    | Request::Abandon { cluster, .. }
    | Request::List { cluster, .. } = request
        && let (Some(asked), Some(serves)) = (cluster, images.identity())
        && !serves.is(asked)
    {
        return Response::OtherCluster { serves: serves.clone() };
    }
    let stopping = Response::Stopping { pid: std::process::id() };
    let failed = |refusal: Refusal| Response::Failed { message: refusal.message, errno: refusal.errno };
    match request {
        Request::Attach { spec, read_only, own_client, .. } => {
            match images.attach(spec, How { read_only: *read_only, own_client: *own_client }) {
                Ok(AttachOutcome::Attached(attached)) => Response::Attached(attached),
                Ok(AttachOutcome::Stopping) => stopping,
                Err(refusal) => failed(refusal),
            }
        }
        Request::Detach { spec, though_open, .. } => match images.detach(spec, *though_open) {
            Ok(()) => Response::Detached,
            Err(refusal) => failed(refusal),
        },
        Request::Abandon { spec, .. } => {
            images.abandon(spec);
            Response::Abandoned
        }
        Request::List { spec, .. } => {
            let meant = |open: &&Arc<OpenImage>| spec.as_ref().is_none_or(|spec| open.spec == *spec);
            let images = images.all().iter().filter(meant).map(|open| open.describe()).collect();
            Response::List { pid: std::process::id(), images }
        }
        Request::Stop { force, on_demand_only } => {
            let may = on_demand || !on_demand_only;
            if may && images.begin_stop(*force).is_ok() { stopping } else { Response::Staying }
        }
    }
}
