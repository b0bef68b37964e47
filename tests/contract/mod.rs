//! What every implementation behind a door must do: one suite a door, run on each of them.

mod aws;
mod objects;
mod secrets;
mod sync_state;
mod table;
