//! The Lambda: environment, logging, and then one invocation after the other.

use hubferry::{app, config::Environment, logging};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let environment = Environment::read();
    logging::start(logging::Format::Json, environment.log_filter.as_deref());
    app::serve_function(environment).await
}
