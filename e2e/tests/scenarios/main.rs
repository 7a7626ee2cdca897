//! What must hold on a real Kubernetes. `e2e/run` brings up all that these need, and runs them one after the other.

mod access;
mod chart;
mod ci;
mod disruptions;
mod ingesting;
mod lifecycle;
mod main_path;
