//! Crash tests: with the `failpoints` feature, `FAILPOINTS=golden::after-clone=panic` kills this process at that point the way
//! the kernel would, with no destructor and no signal handler run. Without the feature this does nothing.

/// Turns an injected panic into a kill.
#[cfg(feature = "failpoints")]
pub fn set_up() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failpoint ") {
            eprintln!("{message}: killed");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        usual(panic);
    }));
    // Set up once for the life of the process, and never torn down.
    std::mem::forget(fail::FailScenario::setup());
}

/// Nothing to set up.
#[cfg(not(feature = "failpoints"))]
pub fn set_up() {}
