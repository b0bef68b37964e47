//! The Lambda: environment, clients, and then one invocation after the other.

use std::rc::Rc;

use hubferry::{app::Process, config::Environment, logging};
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::read();
    logging::start(logging::Format::Json, environment.log_filter.as_deref());
    let process = Rc::new(Process::start(environment).await?);
    if let Err(error) = process.app().await {
        // Each invocation reads the settings again and says what is wrong with them: mending the file is enough.
        tracing::error!(error_code = %error.code(), hint = error.hint(), "{error:?}");
    }
    lambda_runtime::run(service_fn(|event: LambdaEvent<serde_json::Value>| {
        let process = process.clone();
        async move { process.invoke(event).await }
    }))
    .await
}
