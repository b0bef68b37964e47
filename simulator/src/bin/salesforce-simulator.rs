//! A Salesforce org on loopback: `salesforce-simulator [--port N] [--daily N] [--page N] [--public-key FILE]`. Prints its address.
//!
//! The default app may use every flow: consumer key, secret, user name and password are those of `OrgSettings` and `ConnectedApp`,
//! `--public-key` is the DER of the RSA public key for JWT, the password is `passwordtoken`, the refresh token `refresh-token`.

use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use hubferry_simulator::hubspot::server::machine_clock;
use hubferry_simulator::salesforce::{ConnectedApp, Flow, Org, OrgSettings, server};

fn main() -> Result<(), Box<dyn Error>> {
    let mut app = ConnectedApp {
        flows: vec![Flow::ClientCredentials, Flow::Jwt, Flow::RefreshToken, Flow::Password],
        password: "passwordtoken".to_owned(),
        refresh_tokens: vec!["refresh-token".to_owned()],
        ..ConnectedApp::default()
    };
    let mut settings = OrgSettings { soap_login: true, ..OrgSettings::default() };
    let mut port = 0_u16;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--port" => port = value()?.parse()?,
            "--daily" => settings.limits.daily = value()?.parse()?,
            "--page" => settings.page_most = value()?.parse()?,
            "--public-key" => app.public_key = std::fs::read(value()?)?,
            other => {
                let known = "--port N, --daily N, --page N, --public-key FILE";
                return Err(format!("unknown option {other}; known: {known}").into());
            }
        }
    }
    settings.apps = vec![app];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let mut out = std::io::stdout();
        writeln!(out, "http://{}", listener.local_addr()?)?;
        out.flush()?;
        let org = Arc::new(Mutex::new(Org::new(settings)));
        server::serve(listener, org, machine_clock).await?;
        Ok(())
    })
}
