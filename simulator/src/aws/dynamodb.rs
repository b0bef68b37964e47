//! DynamoDB: `dynoxide` behind a thin layer that records calls and injects faults.
//!
//! dynoxide is a library with its own HTTP server; this layer is what the SDK talks to, and it passes each request on.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use dynoxide::Database;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    ACCOUNT, Call, CloudError, Fault, REGION, Service, Shared,
    http::{Answer, Body, Closed, Handler, JsonError, REQUEST_BYTES_MAX, full, header, json_answer, read_all, respond},
};

/// Where tables are kept.
#[derive(Debug, Clone, Default)]
pub enum Tables {
    /// In memory; gone with the cloud.
    #[default]
    Memory,
    /// In an SQLite file, which the next cloud finds again.
    File(PathBuf),
}

impl Tables {
    pub(crate) fn open(&self) -> Result<Database, CloudError> {
        match self {
            Self::Memory => Database::memory(),
            Self::File(path) => Database::new(&path.to_string_lossy()),
        }
        .map_err(|error| CloudError::Database(error.to_string()))
    }
}

/// Creates `name` with the string keys `pk` and `sk` and the TTL attribute `expires_at`; a table that is there stays.
pub(crate) fn create_table(database: &Database, name: &str) -> Result<(), CloudError> {
    let failed = |error: String| CloudError::Database(error);
    let request = json!({
        "TableName": name,
        "KeySchema": [
            { "AttributeName": "pk", "KeyType": "HASH" },
            { "AttributeName": "sk", "KeyType": "RANGE" },
        ],
        "AttributeDefinitions": [
            { "AttributeName": "pk", "AttributeType": "S" },
            { "AttributeName": "sk", "AttributeType": "S" },
        ],
        "BillingMode": "PAY_PER_REQUEST",
    });
    let request = serde_json::from_value(request).map_err(|error| failed(error.to_string()))?;
    match database.create_table(request) {
        Ok(_) => {}
        Err(error) if error.to_string().contains("ResourceInUse") || error.to_string().contains("already exists") => {
            return Ok(());
        }
        Err(error) => return Err(failed(error.to_string())),
    }
    let request = json!({
        "TableName": name,
        "TimeToLiveSpecification": { "Enabled": true, "AttributeName": "expires_at" },
    });
    let request = serde_json::from_value(request).map_err(|error| failed(error.to_string()))?;
    database.update_time_to_live(request).map(|_| ()).map_err(|error| failed(error.to_string()))
}

/// One item, consistently; `None` where there is none or the table is not there.
pub(crate) fn item(database: &Database, table: &str, pk: &str, sk: &str) -> Option<Value> {
    let request =
        json!({ "TableName": table, "Key": { "pk": { "S": pk }, "sk": { "S": sk } }, "ConsistentRead": true });
    let answer = database.get_item(serde_json::from_value(request).ok()?).ok()?;
    serde_json::to_value(answer).ok()?.get("Item").filter(|item| item.is_object()).cloned()
}

/// The `sk` of the items under a `pk`.
pub(crate) fn sort_keys(database: &Database, table: &str, pk: &str, limit: usize) -> Vec<String> {
    let request = json!({
        "TableName": table,
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": { ":pk": { "S": pk } },
        "Limit": limit,
        "ConsistentRead": true,
    });
    let Ok(request) = serde_json::from_value(request) else { return Vec::new() };
    let Ok(answer) = database.query(request) else { return Vec::new() };
    let answer = serde_json::to_value(answer).unwrap_or_default();
    let items = answer.get("Items").and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.pointer("/sk/S")?.as_str().map(str::to_owned)).collect()
}

pub(crate) struct DynamoDb {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstream: SocketAddr,
}

impl DynamoDb {
    /// One exchange with dynoxide, on a connection of its own.
    async fn forward(&self, request: Request<Full<Bytes>>) -> Option<Response<Bytes>> {
        let stream = TcpStream::connect(self.upstream).await.ok()?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let exchange = async move {
            let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
            // The connection ends once `sender` is dropped, that is, after the body is here.
            let body = body.collect().await.ok()?.to_bytes();
            Some(Response::from_parts(parts, body))
        };
        let (response, _) = tokio::join!(exchange, connection);
        response
    }
}

impl Handler for DynamoDb {
    const SERVICE: Service = Service::DynamoDb;

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let action = header(&parts.headers, "x-amz-target")
            .and_then(|target| target.rsplit_once('.'))
            .map(|(_, action)| action.to_owned())
            .unwrap_or_default();
        let Some(body) = read_all(body, REQUEST_BYTES_MAX).await else { return Err(Closed) };
        let mut calls = calls(&action, &body);
        let Some(first) = calls.first() else { return Err(Closed) };
        // The fault is looked up under the name of the whole request, not of its parts.
        let asked = Call { action: action.clone(), ..first.clone() };
        let fault = self.shared.admit(&asked).await;
        let answer = match fault {
            Err(closed) => Err(closed),
            Ok(Some(Fault::Error { status, code })) => {
                let code = format!("com.amazonaws.dynamodb.v20120810#{code}");
                Ok(json_answer("1.0", Err(JsonError { status, code, message: "injected fault".to_owned() })))
            }
            Ok(fault) => {
                let mut onward = Request::new(Full::new(body));
                *onward.method_mut() = parts.method;
                *onward.uri_mut() = parts.uri;
                *onward.headers_mut() = parts.headers;
                // hyper states the length itself.
                onward.headers_mut().remove(http::header::TRANSFER_ENCODING);
                onward.headers_mut().remove(http::header::CONTENT_LENGTH);
                let answer = self.forward(onward).await;
                if matches!(fault, Some(Fault::LoseAnswer)) { Err(Closed) } else { answer.map(rewrap).ok_or(Closed) }
            }
        };
        let status = answer.as_ref().map_or(0, |response| response.status().as_u16());
        for call in &mut calls {
            call.status = status;
            self.shared.recorder.record(call.clone());
        }
        answer
    }
}

fn rewrap(response: Response<Bytes>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut whole = respond(200, &[], full(body));
    *whole.status_mut() = parts.status;
    *whole.headers_mut() = parts.headers;
    whole
}

/// What a request does, as IAM sees it: a transaction is as many permissions as it has kinds of items.
fn calls(action: &str, body: &[u8]) -> Vec<Call> {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let call = |action: &str, table: &str| Call {
        service: Service::DynamoDb,
        action: action.to_owned(),
        permission: format!("dynamodb:{action}"),
        resource: format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}"),
        status: 0,
    };
    let mut calls = Vec::new();
    for item in request.get("TransactItems").and_then(Value::as_array).into_iter().flatten() {
        for (kind, operation) in item.as_object().into_iter().flatten() {
            let action = match kind.as_str() {
                "Put" => "PutItem",
                "Update" => "UpdateItem",
                "Delete" => "DeleteItem",
                "Get" => "GetItem",
                _ => "ConditionCheckItem",
            };
            calls.push(call(action, super::http::text(operation, "TableName").unwrap_or_default()));
        }
    }
    for (table, _) in request.get("RequestItems").and_then(Value::as_object).into_iter().flatten() {
        calls.push(call(action, table));
    }
    if calls.is_empty() {
        calls.push(call(action, super::http::text(&request, "TableName").unwrap_or_default()));
    }
    calls
}
