//! temp
use super::{account::Account, records::{RawRecord, RecordPage}, resources::CmsResource};
use crate::{Result, clock::Deadline};
/// temp
#[derive(Debug, Clone, Default)]
pub struct CmsQuery {
    /// temp
    pub updated_after: Option<jiff::Timestamp>,
    /// temp
    pub archived: bool,
    /// temp
    pub by_update: bool,
}
impl Account {
    /// temp
    pub async fn list_cms(&self, _: &CmsResource, _: &CmsQuery, _: Option<&str>, _: Deadline) -> Result<RecordPage> { std::future::ready(()).await; Ok(RecordPage::default()) }
    /// temp
    pub async fn read_cms(&self, _: &CmsResource, _: &str, _: Deadline) -> Result<Option<RawRecord>> { std::future::ready(()).await; Ok(None) }
}
