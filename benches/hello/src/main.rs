//! The least that a Lambda function in Rust can be: what `cargo benches start` measures hubferry's start beside.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Value>| Ok::<_, Error>(json!({ "hello": event.payload }))))
        .await
}
