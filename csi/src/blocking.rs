//! Work that blocks (librbd, mounts), away from the runtime's threads.

/// Does it on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
