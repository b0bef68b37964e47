//! Where a run that was cut off asks to be continued.

use async_trait::async_trait;

use crate::error::Result;

/// Sends messages to ourselves.
#[async_trait(?Send)]
pub trait Queue {
    /// Sends `body`, to be delivered after `delay_seconds` (at most 900).
    async fn send(&self, body: &str, delay_seconds: u16) -> Result<()>;
}
