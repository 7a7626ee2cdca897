//! Makes the gRPC services from `proto/`, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["csi.proto", "pluginregistration.proto", "explain.proto"], ["proto"])?;
    // Clients too: the tests and the benchmarks talk to the plugin as kubelet does.
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(files)?;
    Ok(())
}
