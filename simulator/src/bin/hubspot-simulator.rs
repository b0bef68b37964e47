//! A HubSpot account on loopback: `hubspot-simulator [--port N] [--unlimited] [--burst N]`. Prints its address.

use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use hubferry_simulator::hubspot::{Portal, PortalSettings, server};

fn main() -> Result<(), Box<dyn Error>> {
    let mut settings = PortalSettings::default();
    let mut port = 0_u16;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--port" => port = value()?.parse()?,
            "--burst" => settings.limits.burst = Some(value()?.parse()?),
            "--unlimited" => settings = PortalSettings::unlimited(),
            other => return Err(format!("unknown option {other}; known: --port N, --burst N, --unlimited").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let mut out = std::io::stdout();
        writeln!(out, "http://{}", listener.local_addr()?)?;
        out.flush()?;
        let portal = Arc::new(Mutex::new(Portal::new(settings)));
        server::serve(listener, portal, server::machine_clock).await?;
        Ok(())
    })
}
