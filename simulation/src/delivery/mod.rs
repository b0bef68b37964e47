//! Worlds of deliveries: small files that are replaced and deleted while their notifications come late, twice and in any order and
//! form; CSV and change records. The world, its actors and its oracle are those of the imports.

use crate::{
    Lived, Scale,
    import::{live_as, plan::Kind},
};

/// Lives through one world.
pub fn live(seed: u64, scale: &Scale) -> Lived {
    live_as(Kind::Delivery, seed, scale)
}
