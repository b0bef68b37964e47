//! The door to the CRMs: a request goes in, a response or a lost connection comes out.
//!
//! A status outside 2xx is a response, not an error. Policies (retries, pacing, tokens) are plain code around
//! the door, in [`retry`], [`rate_limit`] and [`token`]; [`client`] is what stands behind it in production.

pub mod client;
pub mod rate_limit;
pub mod retry;
pub mod token;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

/// What is known about a request that got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It never left: safe to repeat, whatever it is.
    Never,
    /// It may have been carried out.
    Maybe,
}

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HttpError {
    /// Whether the other side may have acted on it.
    pub sent: Sent,
    /// What happened, without address parameters, headers or bodies.
    pub message: String,
}

/// Carries one request.
#[async_trait(?Send)]
pub trait HttpService {
    /// One attempt, no retries. The whole body of the response is read.
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>;
}
